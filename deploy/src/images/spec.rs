//! The description of an image: `image.yaml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// What an image is called, what is in it, and how it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSpec {
    /// Full names under which it is imported, for example `docker.io/library/busybox:1.36`.
    pub names: Vec<String>,
    /// What is put into it, in order; later items replace earlier ones.
    pub contents: Vec<Item>,
    /// `ENTRYPOINT`.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment of its processes.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User and group, for example `65535:65535`; root if empty.
    #[serde(default)]
    pub user: String,
    /// Working directory.
    #[serde(default)]
    pub workdir: String,
}

/// One thing put into an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Item {
    /// A Rust source file beside the description, without dependencies, compiled to a static executable.
    Program {
        /// File beside `image.yaml`.
        source: String,
        /// Path in the image.
        to: String,
    },
    /// One of this project's binaries, with the libraries it needs.
    Binary {
        /// Name of the binary.
        name: String,
        /// Path in the image.
        to: String,
    },
    /// A file beside the description.
    Copy {
        /// File beside `image.yaml`.
        from: String,
        /// Path in the image.
        to: String,
        /// Permission bits, octal.
        #[serde(default = "plain_mode")]
        mode: String,
    },
    /// Files of a Debian package.
    Package {
        /// Name of the package.
        name: String,
        /// Only paths that begin with one of these (without a leading slash); everything if empty.
        #[serde(default)]
        take: Vec<String>,
    },
    /// A folder.
    Dir {
        /// Path in the image.
        path: String,
        /// Permission bits, octal.
        #[serde(default = "dir_mode")]
        mode: String,
    },
    /// Links named after every applet of the busybox at `busybox`, in `into`.
    Applets {
        /// Path of busybox in the image.
        busybox: String,
        /// Folder of the links.
        into: String,
    },
    /// A text file written here.
    Text {
        /// Path in the image.
        path: String,
        /// Content.
        content: String,
    },
}

fn plain_mode() -> String {
    "0644".to_owned()
}

fn dir_mode() -> String {
    "0755".to_owned()
}

impl ImageSpec {
    /// Reads a description.
    ///
    /// # Errors
    /// The file is missing, is not YAML, has unknown fields, or gives the image no name.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let spec: Self =
            serde_saphyr::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        ensure!(!spec.names.is_empty(), "{}: names must hold at least one image name", path.display());
        Ok(spec)
    }

    /// The binaries of this project that are in the image.
    pub fn binaries(&self) -> impl Iterator<Item = &str> {
        self.contents.iter().filter_map(|item| match item {
            Item::Binary { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}

/// Octal permission bits.
///
/// # Errors
/// The text is not an octal number.
pub fn parse_mode(text: &str) -> Result<u32> {
    u32::from_str_radix(text, 8).with_context(|| format!("mode {text:?} is not an octal number such as 0755"))
}
