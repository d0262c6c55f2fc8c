//! `hostPath` volumes: a path of the node, after the check its type asks for.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Checks that `path` is of `kind`, making a directory or file where the kind allows it.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let failed = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let is = |test: fn(&fs::FileType) -> bool| {
        fs::metadata(path).is_ok_and(|metadata| test(&metadata.file_type()))
    };
    let made = match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => make_directory(path),
        "FileOrCreate" => make_file(path),
        "Directory" | "File" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        other => return Err(format!("{other} is an invalid volume type")),
    };
    made.map_err(|error| format!("hostPath type check failed: {shown}: {error}"))?;
    match kind {
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => failed("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => failed("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => failed("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => failed("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => failed("a block device"),
        _ => Ok(()),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Makes the directory of a volume that was made for a claim: whoever the claim is for may write to it, as on a disk of
/// its own. It is there with these permissions or not at all.
pub fn make_claimed(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    fs::create_dir_all(&unfinished)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o777))?;
    fs::rename(unfinished, path)
}

fn make_file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn types_are_checked_and_made() {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, kind, ok) in [
            ("none", "", true),
            ("none", "Directory", false),
            ("new/dir", "DirectoryOrCreate", true),
            ("new/dir", "Directory", true),
            ("file", "Directory", false),
            ("file", "File", true),
            ("file", "FileOrCreate", true),
            ("new-file", "FileOrCreate", true),
            ("new/dir", "File", false),
            ("socket", "Socket", true),
            ("file", "Socket", false),
            ("file", "CharDevice", false),
            ("file", "BlockDevice", false),
            ("file", "Nonsense", false),
        ] {
            assert_eq!(check(&at(name), kind).is_ok(), ok, "{name} {kind}");
        }
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        make_claimed(&at("volumes/claimed")).unwrap();
        make_claimed(&at("new/dir")).unwrap();
        assert_eq!((mode("volumes/claimed"), mode("new/dir")), (0o777, 0o755), "what is there stays");
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
        let message = check(&at("file"), "Directory").unwrap_err();
        assert!(
            message.starts_with("hostPath type check failed: ")
                && message.ends_with("/file is not a directory")
        );
    }
}
