//! A directory or file inside a volume, given to a container without a way out of the volume.
//!
//! A container may change the volume while this runs, so names are not trusted twice: the path is resolved, must lie
//! in the volume, is opened without following any link, and what was opened (not what is named) is bind-mounted.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::mounts;
use crate::layout::Layout;

/// Where the bind mount goes.
pub struct Target {
    pub layout: Layout,
    pub pod_uid: String,
    pub volume: String,
    pub container: String,
    pub index: usize,
}

impl Target {
    fn path(&self) -> PathBuf {
        let dir = self.layout.pod_volume_subpaths_dir(&self.pod_uid);
        dir.join(&self.volume).join(&self.container).join(self.index.to_string())
    }
}

/// Makes `sub` of `volume` available at the target, creating it as a directory when it does not exist.
pub fn prepare(volume: &Path, sub: &str, target: &Target) -> io::Result<PathBuf> {
    let source = open_inside(volume, Path::new(sub))?;
    let target = target.path();
    let opened = fs::metadata(through(&source))?;
    if mounts::is_mount_point(&target)? {
        let there = fs::metadata(&target)?;
        if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) {
            return Ok(target);
        }
        mounts::unmount(&target)?;
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if opened.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        fs::write(&target, "")?;
    }
    mounts::bind(&through(&source), &target)?;
    Ok(target)
}

fn through(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn outside(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} leads out of the volume", path.display()))
}

/// Opens `sub` of `volume`, which must lie inside after links are resolved.
fn open_inside(volume: &Path, sub: &Path) -> io::Result<OwnedFd> {
    let root = fs::canonicalize(volume)?;
    let base = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match fs::canonicalize(root.join(sub)) {
        Ok(resolved) => {
            let inner = resolved.strip_prefix(&root).map_err(|_| outside(&resolved))?;
            open_plain(&base, inner)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_inside(&root, &base, sub),
        Err(error) => Err(error),
    }
}

fn open_plain(base: impl AsFd, inner: &Path) -> io::Result<OwnedFd> {
    let inner = if inner.as_os_str().is_empty() { Path::new(".") } else { inner };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(base, inner, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Creates what is missing of `sub` as directories with the volume's own mode.
fn make_inside(root: &Path, base: &OwnedFd, sub: &Path) -> io::Result<OwnedFd> {
    let mode = fs::metadata(root)?.permissions().mode() & 0o7777;
    let mut existing = root.to_owned();
    let mut missing = Vec::new();
    for component in sub.components() {
        let Component::Normal(name) = component else { continue };
        if missing.is_empty() && existing.join(name).exists() {
            existing.push(name);
        } else {
            missing.push(name.to_owned());
        }
    }
    let resolved = fs::canonicalize(&existing)?;
    let inner = resolved.strip_prefix(root).map_err(|_| outside(&resolved))?;
    let mut dir = open_plain(base, inner)?;
    for name in missing {
        let name = Path::new(&name);
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        dir = open_plain(&dir, name)?;
        fs::set_permissions(through(&dir), fs::Permissions::from_mode(mode))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_lies_inside_is_opened() {
        let scratch = Scratch::new();
        let volume = scratch.path().join("volume");
        fs::create_dir_all(volume.join("dir/deep")).unwrap();
        fs::write(volume.join("dir/file"), "in").unwrap();
        fs::write(scratch.path().join("secret"), "out").unwrap();
        symlink("dir/file", volume.join("link-in")).unwrap();
        symlink("../secret", volume.join("link-out")).unwrap();
        symlink("/etc", volume.join("link-abs")).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2775)).unwrap();
        for (sub, ok) in [
            ("dir", true),
            ("dir/deep", true),
            ("dir/file", true),
            ("link-in", true),
            ("link-out", false),
            ("link-abs/passwd", false),
            ("link-abs/new/dir", false),
            ("new/made/dir", true),
        ] {
            assert_eq!(open_inside(&volume, Path::new(sub)).is_ok(), ok, "{sub}");
        }
        assert_eq!(fs::metadata(volume.join("new/made")).unwrap().permissions().mode() & 0o7777, 0o2775);
        assert!(!Path::new("/etc/new").exists());
        let opened = open_inside(&volume, Path::new("link-in")).unwrap();
        assert_eq!(fs::read_to_string(through(&opened)).unwrap(), "in");
    }
}
