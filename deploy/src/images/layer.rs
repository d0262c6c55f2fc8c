//! The files of an image, and their tar stream. The same contents always give the same bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tar::{EntryType, Header};

use super::spec::{ImageSpec, Item, parse_mode};
use super::{Workshop, debian, program};

/// Files by path (without a leading slash).
#[derive(Debug, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Dir { mode: u32 },
    File { mode: u32, data: Vec<u8> },
    Link { target: String },
}

/// Collects everything that `spec` asks for.
pub fn assemble(spec: &ImageSpec, folder: &Path, workshop: &Workshop) -> Result<Layer> {
    let mut layer = Layer::default();
    for item in &spec.contents {
        layer.add(item, folder, workshop).with_context(|| format!("{item:?}"))?;
    }
    Ok(layer)
}

impl Layer {
    fn add(&mut self, item: &Item, folder: &Path, workshop: &Workshop) -> Result<()> {
        match item {
            Item::Program { source, to } => {
                self.file(to, 0o755, program::compile(&folder.join(source), &workshop.cache)?);
            }
            Item::Binary { name, to } => self.binary(&workshop.binaries.join(name), to)?,
            Item::Copy { from, to, mode } => {
                let data = std::fs::read(folder.join(from)).with_context(|| format!("read {from}"))?;
                self.file(to, parse_mode(mode)?, data);
            }
            Item::Package { name, take } => {
                let tar = debian::files(name, &workshop.cache)?;
                self.unpack(&tar, take)?;
            }
            Item::Dir { path, mode } => self.put(path, Entry::Dir { mode: parse_mode(mode)? }),
            Item::Applets { busybox, into } => self.applets(busybox, into)?,
            Item::Text { path, content } => self.file(path, 0o644, content.clone().into_bytes()),
        }
        Ok(())
    }

    fn put(&mut self, path: &str, entry: Entry) {
        self.entries.insert(path.trim_start_matches("./").trim_matches('/').to_owned(), entry);
    }

    fn file(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.put(path, Entry::File { mode, data });
    }

    fn binary(&mut self, binary: &Path, to: &str) -> Result<()> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        self.file(to, 0o755, read(binary)?);
        for library in program::libraries(binary)? {
            self.file(&library.to_string_lossy(), 0o755, read(&library)?);
        }
        Ok(())
    }

    fn unpack(&mut self, tar: &[u8], take: &[String]) -> Result<()> {
        let wanted =
            |path: &str| take.is_empty() || take.iter().any(|prefix| path.starts_with(prefix.as_str()));
        let mut found = false;
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let path =
                entry.path()?.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
            if path.is_empty() || !wanted(&path) {
                continue;
            }
            found = true;
            let mode = entry.header().mode()? & 0o7777;
            match entry.header().entry_type() {
                EntryType::Directory => self.put(&path, Entry::Dir { mode }),
                EntryType::Symlink => {
                    let target = entry.link_name()?.context("symbolic link without a target")?;
                    let target = target.to_string_lossy().into_owned();
                    self.put(&path, Entry::Link { target });
                }
                EntryType::Link => {
                    let target = entry.link_name()?.context("hard link without a target")?;
                    let target = target.to_string_lossy().trim_start_matches("./").to_owned();
                    let same = self.entries.get(&target).cloned();
                    self.put(&path, same.with_context(|| format!("hard link to missing {target}"))?);
                }
                EntryType::Regular => {
                    let mut data = Vec::new();
                    entry.read_to_end(&mut data)?;
                    self.file(&path, mode, data);
                }
                other => bail!("{path} is of a kind that images here do not hold: {other:?}"),
            }
        }
        ensure!(found, "the package holds none of {take:?}");
        Ok(())
    }

    /// Links for every applet that busybox itself says it has.
    fn applets(&mut self, busybox: &str, into: &str) -> Result<()> {
        let Some(Entry::File { data, .. }) = self.entries.get(busybox.trim_start_matches('/')) else {
            bail!("{busybox} is not in the image yet");
        };
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("busybox");
        std::fs::write(&program, data)?;
        program::make_executable(&program)?;
        let output = Command::new(&program).arg("--list").output().context("run busybox --list")?;
        ensure!(output.status.success(), "busybox --list failed");
        for applet in String::from_utf8_lossy(&output.stdout).lines().filter(|a| *a != "busybox") {
            self.put(&format!("{into}/{applet}"), Entry::Link { target: busybox.to_owned() });
        }
        Ok(())
    }

    /// The layer as a tar stream: folders before what is in them, owner root, time zero.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut entries = self.entries.clone();
        for path in self.entries.keys() {
            for (at, _) in path.match_indices('/') {
                entries.entry(path[..at].to_owned()).or_insert(Entry::Dir { mode: 0o755 });
            }
        }
        for (path, entry) in &entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            match entry {
                Entry::Dir { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    builder.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::File { mode, data } => {
                    header.set_mode(*mode);
                    header.set_size(data.len() as u64);
                    builder.append_data(&mut header, path, data.as_slice())?;
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(builder.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_has_parents_first_and_is_reproducible() {
        let mut layer = Layer::default();
        layer.file("/usr/bin/tool", 0o4755, b"x".to_vec());
        layer.put("/tmp", Entry::Dir { mode: 0o1777 });
        layer.put("bin/sh", Entry::Link { target: "/usr/bin/tool".into() });
        let tar = layer.to_tar().expect("writes to memory");
        let listed: Vec<_> = tar::Archive::new(tar.as_slice())
            .entries()
            .expect("a tar")
            .map(|e| {
                let e = e.expect("an entry");
                (e.path().expect("a path").to_string_lossy().into_owned(), e.header().mode().expect("a mode"))
            })
            .collect();
        let expected = [
            ("bin/", 0o755),
            ("bin/sh", 0o777),
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/tool", 0o4755),
        ];
        assert_eq!(listed, expected.map(|(path, mode)| (path.to_owned(), mode)));
        assert_eq!(tar, layer.to_tar().expect("writes to memory"));
    }
}
