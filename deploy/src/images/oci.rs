//! The OCI archive: one uncompressed layer, its configuration, a manifest, and an index with every name.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::Layer;
use super::spec::ImageSpec;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Writes the archive; an interrupted write leaves no archive.
pub fn write(path: &Path, spec: &ImageSpec, layer: &Layer) -> Result<()> {
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", layer.to_tar()?);
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config(spec, &layer));
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
                          "config": config.descriptor(), "layers": [layer.descriptor()]});
    let manifest = Blob::json(MANIFEST, &manifest);
    let named: Vec<_> = spec.names.iter().map(|name| manifest.named(name)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                       "manifests": named});

    let partial = path.with_extension("partial");
    let file = File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
    let mut archive = tar::Builder::new(file);
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    for blob in [&layer, &config, &manifest] {
        append(&mut archive, &format!("blobs/sha256/{}", blob.digest), &blob.data)?;
    }
    append(&mut archive, "index.json", index.to_string().as_bytes())?;
    archive.into_inner()?.sync_all()?;
    Ok(std::fs::rename(&partial, path)?)
}

fn append(archive: &mut tar::Builder<File>, name: &str, data: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    Ok(archive.append_data(&mut header, name, data)?)
}

fn config(spec: &ImageSpec, layer: &Blob) -> Value {
    let mut env: Vec<_> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !spec.env.contains_key("PATH") {
        env.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    let mut run = json!({"Env": env});
    for (key, words) in [("Entrypoint", &spec.entrypoint), ("Cmd", &spec.command)] {
        if !words.is_empty() {
            run[key] = json!(words);
        }
    }
    for (key, text) in [("User", &spec.user), ("WorkingDir", &spec.workdir)] {
        if !text.is_empty() {
            run[key] = json!(text);
        }
    }
    json!({"architecture": architecture(), "os": "linux", "config": run,
           "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]}})
}

/// The machine's architecture by its Go name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

struct Blob {
    media_type: &'static str,
    digest: String,
    data: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, data: Vec<u8>) -> Self {
        Self { media_type, digest: format!("{:x}", Sha256::digest(&data)), data }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": format!("sha256:{}", self.digest), "size": self.data.len()})
    }

    /// The descriptor under a name that containerd imports it by.
    fn named(&self, name: &str) -> Value {
        let mut descriptor = self.descriptor();
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
        descriptor
    }
}
