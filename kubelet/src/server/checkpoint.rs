//! Checkpoints of running containers: the runtime writes one into the kubelet's directory, where it can. Where it cannot,
//! its refusal is the answer.

use std::sync::Arc;

use http::{Response, StatusCode};
use proto::cri;

use super::Server;
use super::query::Query;
use super::respond::{Body, json, text};
use super::target::{Target, running_container};
use crate::types;

/// Writes a checkpoint of one container; answers where it is.
pub async fn checkpoint(server: &Arc<Server>, target: Target, query: &Query) -> Response<Body> {
    let Some(pod) = target.find(server) else { return text(StatusCode::NOT_FOUND, "pod does not exist") };
    let container = &target.container;
    if types::find_container(types::spec(&pod), container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    let timeout = match query.all("timeout").last().map(|text| text.parse()) {
        None => 0,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => return text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter"),
    };
    let failed = |error: String| {
        let what = format!("{}/{}/{container}", target.namespace, target.pod);
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("checkpointing of {what} failed ({error})"))
    };
    let id = match running_container(server, &pod, container).await {
        Ok(id) => id,
        Err(error) => return failed(error),
    };
    let directory = server.deps.layout.root().join("checkpoints");
    if let Err(error) = tokio::fs::create_dir_all(&directory).await {
        return failed(error.to_string());
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let location = directory.join(format!("checkpoint-{}-{container}-{now}.tar", types::full_name(&pod)));
    let location = location.display().to_string();
    let request = cri::CheckpointContainerRequest { container_id: id, location: location.clone(), timeout };
    match server.deps.runtime.checkpoint_container(request).await {
        Ok(()) => json(&serde_json::json!({ "items": [location] })),
        Err(error) => failed(error.to_string()),
    }
}
