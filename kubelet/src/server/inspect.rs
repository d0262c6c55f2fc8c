//! What the kubelet shows of itself: its pods, its configuration, the node's logs.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proto::cri;

use super::Server;
use super::respond::{Body, full, json, text, with_type};
use crate::containers::labels;
use crate::types;

const NODE_LOGS: &str = "/var/log";

fn list(items: &[Pod]) -> Response<Body> {
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// The pods bound to this node, with the newest status.
pub fn pods(server: &Server) -> Response<Body> {
    let with_status = |pod: Arc<Pod>| {
        let mut pod = Pod::clone(&pod);
        if let Some(status) = server.deps.status.pod_status(types::uid(&pod)) {
            pod.status = Some(status.as_ref().clone());
        }
        pod
    };
    let allocated = server.deps.pods.pods().into_iter().map(|pod| server.deps.allocated.applied(&pod));
    let pods: Vec<Pod> = allocated.map(with_status).collect();
    list(&pods)
}

/// The pods that have running containers at the runtime.
pub async fn running_pods(server: &Server) -> Response<Body> {
    let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(running), ..cri::ContainerFilter::default() };
    let containers = match server.deps.runtime.list_containers(Some(filter)).await {
        Ok(containers) => containers,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    };
    let mut pods: std::collections::BTreeMap<String, Pod> = std::collections::BTreeMap::new();
    for container in containers {
        let label = |name: &str| container.labels.get(name).cloned();
        let Some(uid) = label(labels::POD_UID) else { continue };
        let pod = pods.entry(uid.clone()).or_insert_with(|| Pod {
            metadata: ObjectMeta {
                name: label(labels::POD_NAME),
                namespace: label(labels::POD_NAMESPACE),
                uid: Some(uid),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec::default()),
            status: None,
        });
        let image = container.image.map(|image| image.image);
        let shown = Container {
            name: label(labels::CONTAINER_NAME).unwrap_or_default(),
            image,
            ..Container::default()
        };
        pod.spec.get_or_insert_default().containers.push(shown);
    }
    list(&pods.into_values().collect::<Vec<_>>())
}

/// The configuration in effect.
pub fn configz(server: &Server) -> Response<Body> {
    json(&serde_json::json!({"kubeletconfig": *server.deps.config}))
}

/// A file or directory of the node's logs.
pub async fn node_logs(parts: &[&str]) -> Response<Body> {
    let relative: PathBuf = parts.iter().collect();
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return text(StatusCode::BAD_REQUEST, "invalid path");
    }
    // Links may not lead out of the directory: what lies elsewhere is no log.
    let root = Path::new(NODE_LOGS);
    let Ok(path) = tokio::fs::canonicalize(root.join(relative)).await else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if !path.starts_with(root) {
        return text(StatusCode::FORBIDDEN, "not a log");
    }
    if path.is_dir() {
        return directory(&path);
    }
    match tokio::fs::read(&path).await {
        Ok(content) => with_type(StatusCode::OK, "text/plain; charset=utf-8", full(content)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn directory(path: &Path) -> Response<Body> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flat_map(|entries| entries.flatten())
        .map(|entry| {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let escape = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let lines: String = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escape(name))).collect();
    with_type(StatusCode::OK, "text/html; charset=utf-8", full(format!("<pre>\n{lines}</pre>\n")))
}
