//! Group ownership of a volume (`fsGroup`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const EXECUTE: u32 = 0o110;
const SET_GID: u32 = 0o2000;

/// Gives everything in `dir` to `group`, readable (and writable) for it; directories hand the group on.
/// With `on_root_mismatch` a directory that is right already is trusted.
pub fn set(dir: &Path, group: u32, read_only: bool, on_root_mismatch: bool) -> io::Result<()> {
    if on_root_mismatch && is_right(&fs::metadata(dir)?, group, read_only) {
        return Ok(());
    }
    set_below(dir, group, read_only)?;
    // The root last: an interrupted walk is done again.
    set_one(dir, group, read_only)
}

/// As [`set`] for the directory alone.
pub fn set_root(dir: &Path, group: u32) -> io::Result<()> {
    set_one(dir, group, true)
}

fn wanted(mode: u32, is_dir: bool, read_only: bool) -> u32 {
    let mask = if read_only { READ_ONLY } else { READ_WRITE };
    mode | mask | if is_dir { SET_GID | EXECUTE } else { 0 }
}

fn is_right(metadata: &fs::Metadata, group: u32, read_only: bool) -> bool {
    let mode = metadata.permissions().mode() & 0o7777;
    metadata.gid() == group && mode == wanted(mode, metadata.is_dir(), read_only)
}

fn set_below(dir: &Path, group: u32, read_only: bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_below(&entry.path(), group, read_only)?;
        }
        set_one(&entry.path(), group, read_only)?;
    }
    Ok(())
}

fn set_one(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    lchown(path, None, Some(group))?;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    fs::set_permissions(path, fs::Permissions::from_mode(wanted(mode, metadata.is_dir(), read_only)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_gain_what_the_group_needs() {
        for (mode, dir, read_only, want) in [
            (0o600, false, false, 0o660),
            (0o644, false, true, 0o644),
            (0o755, true, false, 0o2775),
            (0o700, true, true, 0o2750),
        ] {
            assert_eq!(wanted(mode, dir, read_only), want, "{mode:o}");
        }
    }
}
