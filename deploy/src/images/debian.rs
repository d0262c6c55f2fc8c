//! Debian packages as a source of files; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The files of a package as a tar stream; the package is downloaded unless it is in the cache.
pub fn files(package: &str, cache: &Path) -> Result<Vec<u8>> {
    let deb = fetch(package, &cache.join("packages"))?;
    let output = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb).output().context("run dpkg-deb")?;
    ensure!(output.status.success(), "{} cannot be read: {}", deb.display(), error_text(&output.stderr));
    Ok(output.stdout)
}

fn fetch(package: &str, folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    if let Some(deb) = find(package, folder)? {
        return Ok(deb);
    }
    let mut command = Command::new("apt-get");
    // Downloads run as the user _apt unless told otherwise, who may not write here.
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
    let output = command.output().context("run apt-get download")?;
    ensure!(
        output.status.success(),
        "package {package} cannot be downloaded (is `apt-get update` needed?): {}",
        error_text(&output.stderr)
    );
    find(package, folder)?.with_context(|| format!("apt-get left no file for {package}"))
}

fn find(package: &str, folder: &Path) -> Result<Option<PathBuf>> {
    let prefix = format!("{package}_");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn error_text(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().to_owned()
}
