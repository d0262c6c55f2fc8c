//! kubeconfig files for the identities of a cluster.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine;
use client::{Client, ConnectOptions};
use serde_json::{Value, json};

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

fn render(layout: &Layout, server: &str, identity: &str) -> Result<String> {
    let read = |file: String| {
        let path = layout.pki(&file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let user = json!({"client-certificate-data": encode(&read(format!("{identity}.crt"))?),
                      "client-key-data": encode(&read(format!("{identity}.key"))?)});
    text(server, &read("ca.crt".into())?, identity, &user)
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A kubeconfig for one user of one cluster. JSON is YAML; every reader takes it.
///
/// # Errors
/// None that is known.
pub fn text(server: &str, authority: &str, name: &str, user: &Value) -> Result<String> {
    let cluster = json!({"server": server, "certificate-authority-data": encode(authority)});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": "coxswain",
        "clusters": [{"name": "coxswain", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "coxswain", "context": {"cluster": "coxswain", "user": name}}],
    });
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}

/// A client that is `identity`.
///
/// # Errors
/// The kubeconfig cannot be used.
pub async fn connect(layout: &Layout, identity: &str) -> Result<Client> {
    let options = ConnectOptions {
        kubeconfig: Some(layout.kubeconfig(identity)),
        user_agent: "coxswain".into(),
        master: None,
    };
    Ok(client::connect(&options).await?)
}
