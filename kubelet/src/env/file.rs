//! Files of variables: a strict part of the shell's syntax, as upstream's `env_util.go` reads it.
//!
//! `NAME='value'` one after the other, with comments; a value may span lines, and nothing in it is special.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Larger files are not read; a variable is small.
const MAX_SIZE: u64 = 16 << 20;

/// The value of `key` in the file at `path` of a volume, empty when there is none. Links lead nowhere out of the volume.
pub fn read(volume: &Path, path: &str, key: &str) -> io::Result<String> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let path = path.trim_start_matches('/');
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let mut text = String::new();
    std::fs::File::from(file).take(MAX_SIZE).read_to_string(&mut text)?;
    parse(&text, key).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The value of `key` in `text`. Only what stands before it is checked.
fn parse(text: &str, key: &str) -> Result<String, String> {
    let wrong =
        |line: usize, what: &str| format!("invalid environment variable format at line {line}: {what}");
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let (number, line) = (index + 1, line.trim_start_matches([' ', '\t']));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or_else(|| wrong(number, "missing '='"))?;
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return Err(wrong(number, "empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(wrong(number, "whitespace before '=' is not allowed"));
        }
        if rest.starts_with([' ', '\t']) {
            // As in a shell: the variable is empty, and the rest a command.
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let quoted = rest
            .strip_prefix('\'')
            .ok_or_else(|| wrong(number, "value must be enclosed in single quotes"))?;
        let (mut value, mut rest, mut at) = (String::new(), quoted, number);
        let after = loop {
            if let Some((before, after)) = rest.split_once('\'') {
                value.push_str(before);
                break after.trim_start_matches([' ', '\t']);
            }
            value.push_str(rest);
            value.push('\n');
            let unclosed = || {
                format!(
                    "invalid environment variable format starting at line {number}: unclosed single quote"
                )
            };
            let (index, next) = lines.next().ok_or_else(unclosed)?;
            (rest, at) = (next, index + 1);
        };
        if !after.is_empty() && !after.starts_with('#') {
            return Err(wrong(at, "unexpected content after closing quote"));
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_single_quotes() {
        let cases = [
            ("A='1'\nB='2'\n", "B", Ok("2")),
            ("A='1'", "C", Ok("")),
            ("# A='0'\n\n  \t A='1' # and so on\n", "A", Ok("1")),
            ("A='one\ntwo'\nB='x'", "A", Ok("one\ntwo")),
            ("A='one\ntwo'\nB='x'", "B", Ok("x")),
            ("A='$HOME \\n \"q\"'", "A", Ok("$HOME \\n \"q\"")),
            ("A= '1'", "A", Ok("")),
            ("A= '1'\nB='2'", "B", Ok("2")),
            ("A=''", "A", Ok("")),
            ("A='1'\nnonsense", "A", Ok("1")),
            ("nonsense\nA='1'", "A", Err("invalid environment variable format at line 1: missing '='")),
            (
                "A ='1'",
                "A",
                Err("invalid environment variable format at line 1: whitespace before '=' is not allowed"),
            ),
            ("='1'", "A", Err("invalid environment variable format at line 1: empty variable name")),
            (
                "A=1",
                "A",
                Err("invalid environment variable format at line 1: value must be enclosed in single quotes"),
            ),
            (
                "A=\"1\"",
                "A",
                Err("invalid environment variable format at line 1: value must be enclosed in single quotes"),
            ),
            (
                "A='1' B='2'",
                "A",
                Err("invalid environment variable format at line 1: unexpected content after closing quote"),
            ),
            (
                "A='1\n2",
                "A",
                Err("invalid environment variable format starting at line 1: unclosed single quote"),
            ),
        ];
        for (text, key, expected) in cases {
            assert_eq!(parse(text, key), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn links_stay_in_the_volume() {
        let root = std::env::temp_dir().join(format!("variables-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(root.join("volume/etc")).expect("create");
        std::fs::write(root.join("secret"), "A='outside'").expect("write");
        std::fs::write(root.join("volume/etc/env"), "A='inside'").expect("write");
        for (name, target) in [("up", "../secret"), ("absolute", "/etc/env")] {
            std::os::unix::fs::symlink(target, root.join("volume").join(name)).expect("link");
        }
        let value = |path: &str| read(&root.join("volume"), path, "A").ok();
        assert_eq!(value("etc/env").as_deref(), Some("inside"));
        assert_eq!(value("absolute").as_deref(), Some("inside"));
        assert_eq!(value("up"), None);
        assert_eq!(value("etc"), None);
        std::fs::remove_dir_all(root).expect("remove");
    }
}
