//! Objects that make a bare cluster a useful one: the rights of its pod network, its storage, and its DNS.

use anyhow::{Context, Result};
use client::kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use client::kube::core::{ApiResource, GroupVersionKind};
use client::{Api, Client};
use serde_json::Value;

use crate::join;
use crate::layout::Layout;
use crate::settings::Settings;

/// In the order they are applied.
const MANIFESTS: [&str; 4] = [
    include_str!("../manifests/pod-network.yaml"),
    include_str!("../manifests/nodes.yaml"),
    include_str!("../manifests/storage.yaml"),
    include_str!("../manifests/cluster-dns.yaml"),
];

/// Creates what is missing and brings the rest up to date.
///
/// # Errors
/// The API server refuses.
pub async fn apply(client: &Client, layout: &Layout, settings: &Settings) -> Result<()> {
    for manifest in MANIFESTS {
        let text = manifest
            .replace("${CLUSTER_DNS}", &settings.cluster_dns()?.to_string())
            .replace("${POD_NETWORK_BACKEND}", &settings.pod_network_backend)
            .replace("${CLUSTER_CIDR}", &settings.cluster_cidr)
            .replace("${SERVICE_CLUSTER_IP_RANGE}", &settings.service_cluster_ip_range)
            .replace("${LOCAL_VOLUMES}", &layout.local_volumes().to_string_lossy())
            .replace("${CLUSTER_DOMAIN}", &settings.cluster_domain);
        for document in serde_saphyr::from_multiple::<Value>(&text).context("read a manifest of ours")? {
            apply_one(client, serde_json::from_value(document)?).await?;
        }
    }
    let info = serde_json::to_value(join::cluster_info(layout, settings)?)?;
    apply_one(client, serde_json::from_value(info)?).await
}

async fn apply_one(client: &Client, object: DynamicObject) -> Result<()> {
    let types = object.types.clone().context("object without a kind")?;
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    // Looked for first: a Service that asks for its own address again would be refused as a new one.
    let existing = api.get_opt(&name).await.with_context(|| format!("look for {} {name}", types.kind))?;
    if existing.is_none() {
        match api.create(&PostParams::default(), &object).await {
            Err(error) if client::is_already_exists(&error) => {}
            outcome => return outcome.map(drop).with_context(|| format!("create {} {name}", types.kind)),
        }
    }
    let patch = api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await;
    patch.map(drop).with_context(|| format!("update {} {name}", types.kind))
}
