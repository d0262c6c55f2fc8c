//! kubeconfig files for the identities of a cluster.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::json;

use crate::layout::Layout;
use crate::pki::write_secret;

/// The identities that get a kubeconfig file.
pub const IDENTITIES: [&str; 6] = ["admin", "controller-manager", "scheduler", "proxy", "kubelet", "network"];

/// Writes the kubeconfig of each identity, with its credentials embedded, for the API server at `server`.
///
/// # Errors
/// A certificate is missing, or the disk refuses.
pub fn prepare(layout: &Layout, server: &str) -> Result<()> {
    let folder = layout.data.join("kubeconfig");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for identity in IDENTITIES {
        let text = render(layout, server, identity)?;
        let path = layout.kubeconfig(identity);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        write_secret(&path, &text)?;
    }
    Ok(())
}

/// JSON is YAML; every kubeconfig reader takes it.
fn render(layout: &Layout, server: &str, identity: &str) -> Result<String> {
    let data = |file: String| {
        let path = layout.pki(&file);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        anyhow::Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    let user = json!({"client-certificate-data": data(format!("{identity}.crt"))?,
                      "client-key-data": data(format!("{identity}.key"))?});
    let cluster = json!({"server": server, "certificate-authority-data": data("ca.crt".into())?});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": "coxswain",
        "clusters": [{"name": "coxswain", "cluster": cluster}],
        "users": [{"name": identity, "user": user}],
        "contexts": [{"name": "coxswain", "context": {"cluster": "coxswain", "user": identity}}],
    });
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}
