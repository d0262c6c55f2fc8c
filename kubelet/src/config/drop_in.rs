//! Configuration in pieces: the files of a directory, merged into what `--config` says one after the other.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{API_VERSION, KubeletConfiguration};

impl KubeletConfiguration {
    /// This with the `.conf` files of `directory` merged into it in the order of their names; later ones win. Objects are
    /// merged, lists replaced.
    pub fn with_drop_ins(self, directory: &Path) -> anyhow::Result<Self> {
        let place = || {
            format!("failed to walk through kubelet dropin directory {:?}", directory.display().to_string())
        };
        let mut merged = serde_json::to_value(&self)?;
        for file in files(directory).with_context(place)? {
            if file.extension().is_none_or(|extension| extension != "conf") {
                tracing::info!(path = %file.display(), "not a drop-in file, skipped");
                continue;
            }
            let piece = read(&file)
                .with_context(|| format!("failed to load kubelet dropin file, path: {}", file.display()))?;
            api::patch::merge::apply(&mut merged, piece);
        }
        let config: Self = serde_json::from_value(merged).with_context(place)?;
        config.check_fields()?;
        Ok(config)
    }
}

fn read(file: &Path) -> anyhow::Result<Value> {
    let piece: Value = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let text = |key: &str| piece.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    ensure!(!version.is_empty() && !kind.is_empty(), "no apiVersion/kind");
    ensure!(
        version == API_VERSION && kind == "KubeletConfiguration",
        "unknown apiVersion/kind: {version}, Kind={kind}"
    );
    Ok(piece)
}

/// All files in and below a directory, in lexical order.
fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut entries: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_pieces_win() {
        let dir = std::env::temp_dir().join(format!("drop-ins-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(dir.join("sub")).expect("create");
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let write =
            |name: &str, text: &str| std::fs::write(dir.join(name), format!("{head}{text}")).expect("write");
        write(
            "20-pods.conf",
            "maxPods: 20\nevictionHard: {memory.available: 1Gi}\nclusterDNS: [192.0.2.2]\n",
        );
        write("10-pods.conf", "maxPods: 10\nsyncFrequency: 7s\n");
        write("sub/30.conf", "podsPerCore: 3\n");
        write("40.yaml", "maxPods: 40\n");
        let base =
            KubeletConfiguration { cluster_dns: vec!["192.0.2.1".into()], ..KubeletConfiguration::default() };
        let merged = base.clone().with_drop_ins(&dir).expect("valid");
        assert_eq!((merged.max_pods, merged.pods_per_core), (20, 3));
        assert_eq!(merged.sync_frequency.0.as_secs(), 7);
        assert_eq!(merged.cluster_dns, ["192.0.2.2"]);
        assert_eq!(merged.eviction_hard["memory.available"], "1Gi");
        assert_eq!(merged.eviction_hard["nodefs.available"], "10%", "objects are merged");
        for wrong in ["maxPod: 1\n", "maxPods: many\n"] {
            write("50.conf", wrong);
            assert!(base.clone().with_drop_ins(&dir).is_err(), "{wrong}");
        }
        std::fs::write(dir.join("50.conf"), "maxPods: 1").expect("write");
        let error = format!("{:#}", base.with_drop_ins(&dir).expect_err("no kind"));
        assert!(error.contains("no apiVersion/kind"), "{error}");
        std::fs::remove_dir_all(dir).expect("remove");
    }
}
