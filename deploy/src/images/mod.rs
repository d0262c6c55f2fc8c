//! Container images made without a registry and without Docker: local files and Debian packages become an OCI
//! archive that containerd imports.
//!
//! [`spec`] reads what an image is made of, [`layer`] collects its files, [`debian`] fetches packages,
//! [`program`] compiles or copies executables, [`oci`] writes the archive.

mod debian;
mod layer;
mod oci;
mod program;
pub mod spec;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub use spec::ImageSpec;

/// Where an image is built: caches, and where this project's own binaries are.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// Downloaded packages and compiled programs are kept here.
    pub cache: PathBuf,
    /// The folder of this project's binaries.
    pub binaries: PathBuf,
}

/// Builds every image of `folder` (one subfolder each, with its `image.yaml`) into `out`, unless an archive made
/// of the same things is there already. Returns the archives in the order of the folders.
///
/// # Errors
/// A description is wrong, a package cannot be fetched, a program does not compile, or the disk refuses.
pub fn build_all(
    folder: &Path,
    out: &Path,
    workshop: &Workshop,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.join("image.yaml").is_file())
        .collect();
    folders.sort();
    std::fs::create_dir_all(out)?;
    folders.iter().map(|folder| build(folder, out, workshop, progress)).collect()
}

/// Builds the image described by `folder/image.yaml` and returns its archive.
fn build(
    folder: &Path,
    out: &Path,
    workshop: &Workshop,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let described = || format!("image {name}");
    let spec = ImageSpec::read(&folder.join("image.yaml")).with_context(described)?;
    let (archive, stamp) = (out.join(format!("{name}.tar")), out.join(format!("{name}.stamp")));
    let fingerprint = fingerprint(folder, &spec, workshop).with_context(described)?;
    if archive.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|old| old == fingerprint) {
        return Ok(archive);
    }
    progress(&format!("building image {}", spec.names.first().map_or(name.as_str(), String::as_str)));
    let layer = layer::assemble(&spec, folder, workshop).with_context(described)?;
    oci::write(&archive, &spec, &layer).with_context(described)?;
    std::fs::write(stamp, fingerprint)?;
    Ok(archive)
}

/// Changes when anything the image is made of changes: its folder, or our binaries in it.
fn fingerprint(folder: &Path, spec: &ImageSpec, workshop: &Workshop) -> Result<String> {
    let mut hash = Sha256::new();
    let mut files = vec![];
    collect_files(folder, &mut files)?;
    files.extend(spec.binaries().map(|name| workshop.binaries.join(name)));
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(std::fs::read(&file).with_context(|| format!("read {}", file.display()))?);
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { collect_files(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
