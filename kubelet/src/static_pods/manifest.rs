//! Reads one manifest into the pod that is run. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use api::names::GroupVersion;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use sha2::{Digest, Sha256};

use crate::pods::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE};

/// A manifest is no pod that can be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is neither YAML nor JSON of a Pod.
    #[error("couldn't parse as pod: {0}")]
    Parse(String),
    /// It lacks what cannot be made up.
    #[error("invalid pod: {0}")]
    Invalid(&'static str),
}

/// Reads a manifest. The pod's identity follows from node, file and content, so a changed manifest is another pod.
pub fn read_manifest(text: &str, file: &Path, node_name: &str) -> Result<Pod, Error> {
    let mut pod: Pod =
        serde_saphyr::from_str(first_document(text)).map_err(|e| Error::Parse(e.to_string()))?;
    let name = pod
        .metadata
        .name
        .clone()
        .filter(|n| !n.is_empty())
        .ok_or(Error::Invalid("metadata.name is required"))?;
    if pod.spec.as_ref().is_none_or(|s| s.containers.is_empty()) {
        return Err(Error::Invalid("spec.containers must not be empty"));
    }
    if pod.spec.iter().flat_map(|s| &s.containers).any(|c| c.image.as_deref().unwrap_or_default().is_empty())
    {
        return Err(Error::Invalid("spec.containers[*].image is required"));
    }
    let hash = fingerprint(&pod, file, node_name);
    let uid = pod.metadata.uid.clone().filter(|u| !u.is_empty()).unwrap_or_else(|| hash.clone());
    pod.metadata.uid = Some(uid);
    pod.metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    if pod.metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        pod.metadata.namespace = Some("default".to_owned());
    }
    let annotations = pod.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(CONFIG_SOURCE.to_owned(), "file".to_owned());
    annotations.insert(CONFIG_SEEN.to_owned(), Timestamp::now().to_string());
    annotations.insert(CONFIG_HASH.to_owned(), hash);
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
        // A static pod is bound to its node, whatever becomes of the node.
        let everything = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        };
        spec.tolerations.get_or_insert_with(Vec::new).push(everything);
    }
    with_defaults(&pod)
}

/// The first document of a YAML file: what else is in it is left alone, as by upstream.
fn first_document(text: &str) -> &str {
    let (mut end, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_break = line.trim_end() == "---" || line.starts_with("--- ");
        if is_break && begun {
            return text.get(..end).unwrap_or(text);
        }
        begun |= !is_break && !line.trim().is_empty() && !line.starts_with('#');
        end += line.len();
    }
    text
}

/// A static pod comes past no API server, which would have filled in what is absent.
fn with_defaults(pod: &Pod) -> Result<Pod, Error> {
    let kind = GroupVersion::new("", "v1").with_kind("Pod");
    let mut value = serde_json::to_value(pod).map_err(|e| Error::Parse(e.to_string()))?;
    api::defaults::apply(&kind, &mut value);
    serde_json::from_value(value).map_err(|e| Error::Parse(e.to_string()))
}

fn fingerprint(pod: &Pod, file: &Path, node_name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("host:{node_name}\0file:{}\0", file.display()));
    hash.update(serde_json::to_vec(pod).unwrap_or_default());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: i:1}]}\n";

    #[test]
    fn a_manifest_becomes_a_whole_pod() {
        let pod = read_manifest(WEB, Path::new("/m/web.yaml"), "Node1").expect("valid");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let spec = pod.spec.expect("set");
        assert_eq!(spec.node_name.as_deref(), Some("Node1"));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
        assert_eq!(spec.containers[0].termination_message_path.as_deref(), Some("/dev/termination-log"));
        let annotations = pod.metadata.annotations.expect("set");
        assert_eq!(annotations[CONFIG_SOURCE], "file");
        assert_eq!(Some(&annotations[CONFIG_HASH]), pod.metadata.uid.as_ref());
    }

    #[test]
    fn identity_follows_content_and_place() {
        let uid = |text: &str, file: &str, node: &str| {
            read_manifest(text, Path::new(file), node).expect("valid").metadata.uid
        };
        let base = uid(WEB, "/m/a", "n");
        assert_eq!(base, uid(WEB, "/m/a", "n"));
        for other in
            [uid(&WEB.replace("i:1", "i:2"), "/m/a", "n"), uid(WEB, "/m/b", "n"), uid(WEB, "/m/a", "o")]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_first_document_is_the_pod() {
        for (before, after) in
            [("", "---\n"), ("# a pod\n---\n", ""), ("---\n", "\n---\nkind: Service\n--- \n")]
        {
            let text = format!("{before}{}{after}", WEB.trim_start());
            let pod = read_manifest(&text, Path::new("/m/a"), "n").expect("valid");
            assert_eq!(pod.metadata.name.as_deref(), Some("web-n"), "{text}");
        }
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        for text in [
            "",
            "kind: Service\napiVersion: v1\nmetadata: {name: x}",
            "kind: Pod\napiVersion: v1\nspec: {containers: []}",
        ] {
            assert!(read_manifest(text, Path::new("/m/a"), "n").is_err(), "{text}");
        }
    }
}
