//! Pods (upstream `core/validation`).

mod containers;
mod env;
mod ephemeral;
mod init;
mod resize;
mod resources;
mod scheduling;
mod security;
mod spec;
mod status;
mod tolerated;
mod update;
mod volumes;

use api::names::GroupVersionKind;
use api::patch::merge;
use serde_json::{Value, json};

use super::{below, container, pod_spec};

pub(crate) fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

/// A pod that lacks nothing.
pub(crate) fn base() -> Value {
    json!({"metadata": {"name": "abc", "namespace": "ns"}, "spec": pod_spec("Always")})
}

/// A container that lacks nothing, with some changes.
pub(crate) fn changed(name: &str, changes: &Value) -> Value {
    let mut container = container(name);
    merge::apply(&mut container, changes.clone());
    container
}

/// Cases of changes of the spec.
fn specs(cases: &[(Value, &str)]) {
    below(&kind(), &base(), "spec", |spec| json!({"spec": spec}), cases);
}

/// Hooks that no container may have.
fn bad_pre_stops() -> [(Value, &'static str); 6] {
    let stop = |handler: Value| json!({"lifecycle": {"preStop": handler}});
    [
        (stop(json!({"exec": {}})), ".lifecycle.preStop.exec.command: Required value"),
        (
            stop(json!({"httpGet": {"port": 80, "scheme": "HTTP"}})),
            ".lifecycle.preStop.httpGet.path: Required value",
        ),
        (
            stop(json!({"httpGet": {"path": "/", "port": 0, "scheme": "HTTP"}})),
            ".lifecycle.preStop.httpGet.port: must be between 1 and 65535, inclusive",
        ),
        (
            stop(json!({"httpGet": {"path": "/", "port": 80}})),
            ".lifecycle.preStop.httpGet.scheme: Unsupported value: \"\"",
        ),
        (
            stop(json!({"tcpSocket": {"port": 0}})),
            ".lifecycle.preStop.tcpSocket.port: must be between 1 and 65535, inclusive",
        ),
        (stop(json!({})), ".lifecycle.preStop: Required value: must specify a handler type"),
    ]
}

/// Cases of changes of the only container.
fn containers(cases: &[(Value, &str)]) {
    let place = |own: &Value| json!({"spec": {"containers": [changed("ctr", own)]}});
    below(&kind(), &base(), "spec.containers[0]", place, cases);
}
