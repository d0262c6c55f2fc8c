//! `componentstatuses`: how the scheduler, the controller manager and the store are. Read only, deprecated upstream.

use api::names::{GroupResource, GroupVersionKind};
use api::status::ApiError;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::value;
use crate::body::Body;
use crate::handlers::render::{IncludeObject, table, transformed};
use crate::negotiate::Transform;
use crate::server::Context;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "ComponentStatus")
}

const NAMES: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

async fn status(cx: &Context, name: &str) -> Option<Value> {
    let outcome = match name {
        "etcd-0" => cx.server.cacher.store().current_revision().await.map(drop).map_err(|e| e.to_string()),
        "scheduler" => probe(10259).await,
        "controller-manager" => probe(10257).await,
        _ => return None,
    };
    let (status, message, error) = match outcome {
        Ok(()) => ("True", "ok".to_owned(), String::new()),
        Err(error) => ("False", error.clone(), error),
    };
    let mut condition = json!({"type": "Healthy", "status": status, "message": message});
    if !error.is_empty() && name != "etcd-0" {
        condition["error"] = error.into();
    }
    Some(json!({"metadata": {"name": name}, "conditions": [condition]}))
}

/// Whether a component listens on its usual port of this machine.
async fn probe(port: u16) -> Result<(), String> {
    let connect = tokio::net::TcpStream::connect(("127.0.0.1", port));
    match tokio::time::timeout(std::time::Duration::from_secs(2), connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(format!(
            "Get \"https://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )),
        Err(_) => Err(format!("Get \"https://127.0.0.1:{port}/healthz\": context deadline exceeded")),
    }
}

/// One component.
pub async fn component_status(cx: &Context, name: &str) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let Some(mut found) = status(cx, name).await else {
        return Err(ApiError::not_found(&GroupResource::new("", "componentstatus"), name));
    };
    found["kind"] = "ComponentStatus".into();
    found["apiVersion"] = "v1".into();
    let include = IncludeObject::parse(cx.query.first("includeObject"))?;
    value(cx, accepted, StatusCode::OK, &transformed(&(&kind()).into(), found, accepted, include)?)
}

/// All components.
pub async fn component_statuses(cx: &Context) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let mut items = Vec::new();
    for name in NAMES {
        items.extend(status(cx, name).await);
    }
    if let Some((Transform::Table, version)) = accepted.transform {
        let include = IncludeObject::parse(cx.query.first("includeObject"))?;
        return value(
            cx,
            accepted,
            StatusCode::OK,
            &table(&(&kind()).into(), &items, json!({}), version, include, true)?,
        );
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
    value(cx, accepted, StatusCode::OK, &list)
}
