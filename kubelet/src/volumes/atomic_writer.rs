//! Publishes a set of files so that readers see either all of the old or all of the new ones.
//!
//! The files lie in a directory named after the time; `..data` is a link to it that is replaced by a rename, and each
//! visible name is a link through `..data`. Layout and order of steps are upstream's AtomicWriter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use rand::Rng;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
const MAX_NAME: usize = 255;
const MAX_PATH: usize = 4096;

/// One file to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProjection {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, when it is not root.
    pub user: Option<u32>,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, FileProjection>;

/// Makes the visible files of `target` exactly `payload`; whether anything was written. `set_permissions` sees the new
/// directory before it is published.
pub fn write(
    target: &Path,
    payload: &Payload,
    set_permissions: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    payload.keys().try_for_each(|path| validate(path))?;
    let old = match fs::read_link(target.join(DATA)) {
        Ok(link) => Some(target.join(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(old) = &old
        && holds(old, payload)?
    {
        remove_stale(target, payload)?;
        link_names(target, payload)?;
        return Ok(false);
    }
    let new = new_directory(target)?;
    let published =
        fill(&new, payload).and_then(|()| set_permissions(&new)).and_then(|()| publish(target, &new));
    if let Err(error) = published {
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    link_names(target, payload)?;
    remove_stale(target, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn validate(path: &str) -> io::Result<()> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err(invalid("invalid path: must not be empty or too long".to_owned()));
    }
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) if name.len() <= MAX_NAME => {}
            Component::Normal(_) => {
                return Err(invalid(format!("invalid path: {path:?}, a name is too long")));
            }
            _ => {
                return Err(invalid(format!(
                    "invalid path: must be relative and must not contain '..': {path}"
                )));
            }
        }
    }
    if path.starts_with("..") {
        return Err(invalid(format!("invalid path: must not start with '..': {path}")));
    }
    Ok(())
}

/// Whether `dir` holds exactly the payload's contents and modes.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    for (path, file) in payload {
        match fs::read(dir.join(path)) {
            Ok(data) if data == file.data => {}
            Ok(_) => return Ok(false),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(files_below(dir, Path::new(""))?.iter().all(|path| payload.contains_key(path)))
}

fn files_below(root: &Path, below: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(root.join(below)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files_below(root, &path)?);
        } else {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn new_directory(target: &Path) -> io::Result<PathBuf> {
    let time = Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
    let path = target.join(format!("{time}.{}", rand::rng().random_range(100_000_000..u32::MAX)));
    fs::create_dir(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn fill(dir: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&path)?;
        io::Write::write_all(&mut open, &file.data)?;
        // Again, because the mode of a new file is cut by the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if let Some(user) = file.user {
            std::os::unix::fs::chown(&path, Some(user), None)?;
        }
    }
    Ok(())
}

fn publish(target: &Path, new: &Path) -> io::Result<()> {
    let link = target.join(DATA_NEW);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(new.file_name().unwrap_or_default(), &link)?;
    fs::rename(link, target.join(DATA))
}

fn visible(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect()
}

fn link_names(target: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible(payload) {
        let link = target.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

fn remove_stale(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted = visible(payload);
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = fs::read_link(entry.path()).is_ok_and(|link| link.starts_with(DATA));
        if ours && !name.starts_with("..") && !wanted.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |(path, data): &(&str, &str)| {
            ((*path).to_owned(), FileProjection { data: data.as_bytes().to_vec(), mode: 0o640, user: None })
        };
        files.iter().map(file).collect()
    }

    fn read_all(dir: &Path) -> String {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(".."));
        names.sort();
        let show = |name: &String| match fs::read_to_string(dir.join(name)) {
            Ok(data) => format!("{name}={data}"),
            Err(_) => format!("{name}/"),
        };
        names.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn payloads_replace_each_other() {
        let scratch = Scratch::new();
        let dir = scratch.path();
        for (files, written, want) in [
            (&[("a", "1"), ("b", "2")][..], true, "a=1 b=2"),
            (&[("a", "1"), ("b", "2")], false, "a=1 b=2"),
            (&[("a", "1"), ("b", "3")], true, "a=1 b=3"),
            (&[("a", "1"), ("d/e/f", "x")], true, "a=1 d/"),
            (&[("d/e/f", "x")], true, "d/"),
            (&[], true, ""),
        ] {
            assert_eq!(write(dir, &payload(files), |_| Ok(())).unwrap(), written, "{files:?}");
            assert_eq!(read_all(dir), want, "{files:?}");
            let times = fs::read_dir(dir)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir())
                .count();
            assert_eq!(times, 1, "old directories go away");
        }
    }

    #[test]
    fn visible_files_are_links_through_the_data_link() {
        let scratch = Scratch::new();
        write(scratch.path(), &payload(&[("d/f", "x")]), |_| Ok(())).unwrap();
        assert_eq!(fs::read_link(scratch.path().join("d")).unwrap(), Path::new("..data/d"));
        assert_eq!(fs::read_to_string(scratch.path().join("d/f")).unwrap(), "x");
        let mode = fs::metadata(scratch.path().join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn failed_permissions_leave_the_old_files() {
        let scratch = Scratch::new();
        write(scratch.path(), &payload(&[("a", "1")]), |_| Ok(())).unwrap();
        let failed = write(scratch.path(), &payload(&[("a", "2")]), |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(read_all(scratch.path()), "a=1");
    }

    #[test]
    fn paths_must_stay_inside() {
        let scratch = Scratch::new();
        for path in ["", "/abs", "../up", "a/../../b", "..hidden", &"x".repeat(300)] {
            assert!(write(scratch.path(), &payload(&[(path, "1")]), |_| Ok(())).is_err(), "{path}");
        }
    }
}
