//! What the API is told of this node's drivers: the CSINode, and labels and an annotation of the Node.

use std::collections::BTreeMap;

use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Client};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use proto::csi::NodeGetInfoResponse;
use serde_json::json;

const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Writes that meet another's are tried again so often.
const TRIES: usize = 5;

fn failed(what: &'static str) -> impl FnOnce(client::kube::Error) -> String {
    move |error| format!("{what}: {}", client::chain(&error))
}

/// Tells the API of a driver.
pub async fn install(
    client: &Client,
    node: &str,
    name: &str,
    info: &NodeGetInfoResponse,
) -> Result<(), String> {
    let topology: BTreeMap<String, String> =
        info.accessible_topology.clone().map(|t| t.segments.into_iter().collect()).unwrap_or_default();
    change_node(client, node, |found| {
        let mut ids = node_ids(found)?;
        let known = ids.insert(name.to_owned(), info.node_id.clone()) == Some(info.node_id.clone());
        let labels = new_labels(found, &topology)?;
        if known && labels.is_empty() {
            return Ok(None);
        }
        let ids = serde_json::to_string(&ids).map_err(|error| error.to_string())?;
        Ok(Some(json!({ "metadata": { "annotations": { NODE_IDS: ids }, "labels": labels } })))
    })
    .await?;
    let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    let driver = CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: (!topology.is_empty()).then(|| topology.keys().cloned().collect()),
        allocatable: (count > 0).then_some(VolumeNodeResources { count: Some(count) }),
    };
    change_csi_node(client, node, |drivers| with_driver(drivers, &driver)).await
}

/// Takes a driver back.
pub async fn uninstall(client: &Client, node: &str, name: &str) -> Result<(), String> {
    change_node(client, node, |found| {
        let mut ids = node_ids(found)?;
        if ids.remove(name).is_none() {
            return Ok(None);
        }
        let ids = if ids.is_empty() { None } else { serde_json::to_string(&ids).ok() };
        Ok(Some(json!({ "metadata": { "annotations": { NODE_IDS: ids } } })))
    })
    .await?;
    change_csi_node(client, node, |drivers| {
        let rest: Vec<_> = drivers.iter().filter(|d| d.name != name).cloned().collect();
        (rest.len() != drivers.len()).then_some(rest)
    })
    .await
}

fn node_ids(node: &Node) -> Result<BTreeMap<String, String>, String> {
    let text = node.metadata.annotations.as_ref().and_then(|a| a.get(NODE_IDS));
    let read = |text: &String| {
        serde_json::from_str(text).map_err(|error| {
            format!("failed to parse node's {NODE_IDS:?} annotation value ({text:?}) err={error}")
        })
    };
    text.filter(|t| !t.is_empty()).map_or_else(|| Ok(BTreeMap::new()), read)
}

/// Labels that the node lacks. One that says something else already is not changed: another driver relies on it.
fn new_labels(node: &Node, topology: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let mut new = BTreeMap::new();
    for (key, value) in topology {
        match node.metadata.labels.as_ref().and_then(|l| l.get(key)) {
            Some(there) if there == value => {}
            Some(there) => {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{there:?}"
                ));
            }
            None => {
                new.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(new)
}

/// The drivers with this one as it is now; `None` when nothing changes.
fn with_driver(drivers: &[CSINodeDriver], driver: &CSINodeDriver) -> Option<Vec<CSINodeDriver>> {
    if drivers.contains(driver) {
        return None;
    }
    let others = drivers.iter().filter(|d| d.name != driver.name).cloned();
    Some(others.chain([driver.clone()]).collect())
}

async fn change_node(
    client: &Client,
    name: &str,
    change: impl Fn(&Node) -> Result<Option<serde_json::Value>, String>,
) -> Result<(), String> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get(name).await.map_err(failed("error updating Node object with CSI driver node info"))?;
    let Some(mut patch) = change(&node)? else { return Ok(()) };
    // Refused if somebody else was faster; the plugin is registered again then.
    patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
    let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).map_err(failed("error updating Node object with CSI driver node info"))
}

async fn change_csi_node(
    client: &Client,
    name: &str,
    change: impl Fn(&[CSINodeDriver]) -> Option<Vec<CSINodeDriver>>,
) -> Result<(), String> {
    let api: Api<CSINode> = Api::all(client.clone());
    let mut last = String::new();
    for _ in 0..TRIES {
        let mut found = csi_node(client, name).await?;
        let Some(drivers) = change(&found.spec.drivers) else { return Ok(()) };
        found.spec.drivers = drivers;
        match api.replace(name, &PostParams::default(), &found).await {
            Ok(_) => return Ok(()),
            Err(error) if client::is_conflict(&error) => last = client::chain(&error),
            Err(error) => {
                return Err(failed("error updating CSINode object with CSI driver node info")(error));
            }
        }
    }
    Err(format!("error updating CSINode object with CSI driver node info: {last}"))
}

/// The object that tells of this node's drivers, made when there is none.
pub async fn csi_node(client: &Client, name: &str) -> Result<CSINode, String> {
    let api: Api<CSINode> = Api::all(client.clone());
    if let Some(found) = api.get_opt(name).await.map_err(failed("error getting CSINode"))? {
        return Ok(found);
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await.map_err(failed("error getting Node"))?;
    let mut made = CSINode { spec: CSINodeSpec { drivers: Vec::new() }, ..CSINode::default() };
    made.metadata.name = Some(name.to_owned());
    made.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    match api.create(&PostParams::default(), &made).await {
        Ok(created) => Ok(created),
        Err(error) if client::is_already_exists(&error) => {
            api.get(name).await.map_err(failed("error getting CSINode"))
        }
        Err(error) => Err(failed("error creating CSINode")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(name: &str, id: &str) -> CSINodeDriver {
        CSINodeDriver { name: name.to_owned(), node_id: id.to_owned(), ..CSINodeDriver::default() }
    }

    #[test]
    fn a_driver_is_told_once() {
        let none = with_driver(&[], &driver("a", "1")).expect("new");
        assert_eq!(with_driver(&none, &driver("a", "1")), None);
        let changed = with_driver(&none, &driver("a", "2")).expect("changed");
        assert_eq!(changed, [driver("a", "2")]);
        let both = with_driver(&changed, &driver("b", "1")).expect("new");
        assert_eq!(both, [driver("a", "2"), driver("b", "1")]);
    }

    #[test]
    fn labels_of_others_are_respected() {
        let node: Node = serde_saphyr::from_str("metadata: {labels: {zone: a}}").expect("valid");
        let topology = |zone: &str| {
            BTreeMap::from([("zone".to_owned(), zone.to_owned()), ("rack".to_owned(), "1".to_owned())])
        };
        assert_eq!(new_labels(&node, &topology("a")).map(|l| l.len()), Ok(1));
        assert!(new_labels(&node, &topology("b")).is_err_and(|e| e.contains("collision")));
    }
}
