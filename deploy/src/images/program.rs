//! Executables for images: small static ones compiled here, and this project's own with their libraries.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// Compiles one Rust file, without dependencies, to a static executable; the result is cached by its source.
pub fn compile(source: &Path, cache: &Path) -> Result<Vec<u8>> {
    let text = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    let folder = cache.join("programs");
    std::fs::create_dir_all(&folder)?;
    let out = folder.join(format!("{:x}", Sha256::digest(&text)));
    if !out.is_file() {
        let partial = out.with_extension("partial");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "-O", "-C", "panic=abort", "-C", "strip=symbols"]);
        rustc.args(["-C", "target-feature=+crt-static", "-o"]).arg(&partial).arg(source);
        let output = rustc.output().context("run rustc")?;
        ensure!(
            output.status.success(),
            "{} does not compile: {}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::rename(&partial, &out)?;
    }
    std::fs::read(&out).with_context(|| format!("read {}", out.display()))
}

/// The shared libraries and the loader that `binary` needs, by their absolute paths.
pub fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(binary).output().context("run ldd")?;
    ensure!(output.status.success(), "ldd cannot read {}", binary.display());
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `name => /path (address)`, or `/path (address)` for the loader; what has no path is in the kernel.
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// Lets everybody run the file.
pub fn make_executable(path: &Path) -> Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines_give_paths() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
    }
}
