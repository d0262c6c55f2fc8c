//! Mount points of this machine: finding, making and undoing them.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

/// Every mount point at or below `dir`, deepest first.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, dir))
}

fn parse(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let targets = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut found: Vec<PathBuf> = targets.filter(|target| target.starts_with(dir)).collect();
    // Later mounts cover earlier ones, so the last of a path is undone first.
    found.reverse();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    found
}

/// The kernel writes blanks and backslashes as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    PathBuf::from(out + rest)
}

/// Whether something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(below(path)?.iter().any(|target| target == path))
}

/// Mounts a filesystem in memory; unlimited (half of the machine's memory) without `size`.
pub fn tmpfs(target: &Path, size: Option<i64>) -> io::Result<()> {
    let mut data = "mode=1777".to_owned();
    if let Some(size) = size {
        data.push_str(&format!(",size={size}"));
    }
    let data = CString::new(data).map_err(io::Error::other)?;
    rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))?;
    Ok(())
}

/// Mounts `source` at `target` as well.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(source, target)?)
}

/// Undoes one mount. What is busy is detached: its last user ends it.
pub fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::BUSY) => {
            Ok(rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_come_deepest_first() {
        let text = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /p/u1 rw - tmpfs t rw\n3 1 0:3 / /p/u1/a\\040b/c rw - tmpfs t rw\n4 1 0:4 / /p/u11 rw - tmpfs t rw\n";
        assert_eq!(parse(text, Path::new("/p/u1")), [PathBuf::from("/p/u1/a b/c"), PathBuf::from("/p/u1")]);
    }
}
