//! Makes volumes that are directories of a node, for classes of the provisioner `coxswain.io/local-path`.
//!
//! It works as any provisioner outside would: the binder says on a claim that a volume is asked of it, the
//! scheduler says on which node, and what it makes is a `hostPath` volume below the class's parameter `path`, which
//! only pods of that node can have. No pod helps with it. On the machine that this process runs on the directory is made
//! here, so that pods that are not root can write to it; our kubelet makes those of other machines alike when they are
//! mounted (another's would, by `DirectoryOrCreate`, make one that only root can write to). Only here can it be removed
//! here too. A released volume of another machine is kept, with an event that says where its data is: deleting that is
//! left to whoever looks after the machine, who then deletes the volume. There is no limit on the size of a directory.

use super::claims::{self, PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER};
use crate::common::errors::IgnoreGone;
use crate::common::{errors, meta};
use crate::context::{Context, enqueue_all, with};
use client::controller::Action;
use client::events::reference;
use client::kube::api::{DeleteParams, PostParams};
use client::{Api, Client, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::sync::Arc;

const NAME: &str = "local-path-provisioner-controller";
const PROVISIONER: &str = "coxswain.io/local-path";
const HOST_NAME: &str = "kubernetes.io/hostname";

/// What to do about a claim.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// The node is gone: the scheduler has to choose again.
    ChooseAgain(Box<PersistentVolumeClaim>),
    /// It cannot be; why.
    Refuse(String),
    Make(Box<PersistentVolume>),
}

/// Decides whether a volume is to be made for a claim. `node` looks a node up.
fn plan(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    node: impl FnOnce(&str) -> Option<Arc<Node>>,
) -> Plan {
    let asked = meta::annotation(&claim.metadata, STORAGE_PROVISIONER) == Some(PROVISIONER);
    if !asked || !claims::volume_name(claim).is_empty() || meta::is_deleting(&claim.metadata) {
        return Plan::Nothing;
    }
    let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return Plan::Nothing };
    if let Some(why) = refusal(claim, class) {
        return Plan::Refuse(why);
    }
    let Some(chosen) = meta::annotation(&claim.metadata, SELECTED_NODE) else {
        return Plan::Refuse("the class must have volumeBindingMode WaitForFirstConsumer".to_owned());
    };
    let Some(node) = node(chosen) else {
        let mut claim = claim.clone();
        claim.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
        return Plan::ChooseAgain(Box::new(claim));
    };
    volume(claim, class, &node).map_or(Plan::Nothing, |volume| Plan::Make(Box::new(volume)))
}

/// Why no directory can be what the claim wants.
fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if let Some(mode) = modes.iter().find(|mode| !mode.starts_with("ReadWriteOnce")) {
        return Some(format!("a directory of one node cannot be used as {mode}"));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("a directory cannot be a block device".to_owned());
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Some("data cannot be brought into the volume".to_owned());
    }
    if class.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Some("mount options are not supported".to_owned());
    }
    root(class).is_none().then(|| "the class needs the parameter path, an absolute path".to_owned())
}

fn root(class: &StorageClass) -> Option<&str> {
    let path = class.parameters.as_ref()?.get("path")?.trim_end_matches('/');
    path.starts_with('/').then_some(path)
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node) -> Option<PersistentVolume> {
    let name = format!("pvc-{}", meta::uid(&claim.metadata));
    let host = meta::label(&node.metadata, HOST_NAME).unwrap_or(meta::name(&node.metadata));
    let spec = claim.spec.as_ref()?;
    let request = json!({ "key": HOST_NAME, "operator": "In", "values": [host] });
    serde_json::from_value(json!({
        "metadata": { "name": name, "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": {
            "capacity": { "storage": spec.resources.as_ref()?.requests.as_ref()?.get("storage")? },
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": meta::name(&class.metadata),
            "volumeMode": "Filesystem",
            "claimRef": reference(claim),
            "hostPath": { "path": format!("{}/{name}", root(class)?), "type": "DirectoryOrCreate" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [request] }] } },
        },
    }))
    .ok()
}

/// The directory of a volume that was made here and is to be deleted. A path that is not as this provisioner makes
/// them is not touched.
fn to_delete(volume: &PersistentVolume) -> Option<&str> {
    let ours = meta::annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER);
    let released = claims::volume_phase(volume) == "Released" && claims::reclaim_policy(volume) == "Delete";
    let path = volume.spec.as_ref()?.host_path.as_ref()?.path.as_str();
    let plain =
        Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let named = Path::new(path).file_name()?.to_str() == volume.metadata.name.as_deref();
    (ours && released && plain && named && path.starts_with('/')).then_some(path)
}

/// The name of the host that a volume is on.
fn host_of(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let expressions = required.node_selector_terms.first()?.match_expressions.as_ref()?;
    let host = expressions.iter().find(|expression| expression.key == HOST_NAME)?;
    host.values.as_ref()?.first().map(String::as_str)
}

#[derive(Clone)]
struct Provisioner(Arc<Shared>);

struct Shared {
    client: Client,
    recorder: EventRecorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    /// Tells this machine from others: every start of a kernel has its own.
    boot_id: String,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let provisioner = Provisioner(Arc::new(Shared {
        client: cx.client.clone(),
        recorder: cx.recorder(PROVISIONER),
        claims: cx.informer(),
        volumes: cx.informer(),
        classes: cx.informer(),
        nodes: cx.informer(),
        boot_id: boot_id.trim().to_owned(),
    }));
    let (claim_queue, volume_queue) =
        (WorkQueue::new("local_path_claims"), WorkQueue::new("local_path_volumes"));
    enqueue_all(&provisioner.0.claims, &claim_queue);
    enqueue_all(&provisioner.0.volumes, &volume_queue);
    let of_claims = with(&provisioner, |provisioner, key| async move { provisioner.claim(key).await });
    let of_volumes = with(&provisioner, |provisioner, key| async move { provisioner.volume(key).await });
    cx.work(NAME, claim_queue, 1, provisioner.clone().synced(), of_claims);
    cx.work(NAME, volume_queue, 1, provisioner.synced(), of_volumes);
}

impl Provisioner {
    async fn synced(self) {
        self.0.claims.synced().await;
        self.0.volumes.synced().await;
        self.0.classes.synced().await;
        self.0.nodes.synced().await;
    }

    async fn claim(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(claim) = self.0.claims.store().get(&key) else { return Ok(Action::Done) };
        let class = self.0.classes.store().get(&ObjectKey::new("", claims::class_of_claim(&claim)));
        let node = |name: &str| self.0.nodes.store().get(&ObjectKey::new("", name));
        match plan(&claim, class.as_deref(), node) {
            Plan::Nothing => {}
            Plan::ChooseAgain(claim) => {
                let api: Api<PersistentVolumeClaim> = Api::namespaced(self.0.client.clone(), &key.namespace);
                api.replace(&key.name, &PostParams::default(), &claim).await.ignore_not_found()?;
            }
            Plan::Refuse(why) => {
                let class = claims::class_of_claim(&claim);
                let message = format!("failed to provision volume with StorageClass \"{class}\": {why}");
                self.0.recorder.object_event(&*claim, EventType::Warning, "ProvisioningFailed", message);
            }
            Plan::Make(volume) => self.make(&claim, &volume).await?,
        }
        Ok(Action::Done)
    }

    async fn make(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> anyhow::Result<()> {
        let name = meta::name(&volume.metadata);
        if self.0.volumes.store().get(&ObjectKey::new("", name)).is_some() {
            return Ok(());
        }
        if let Some(source) = volume.spec.as_ref().and_then(|spec| spec.host_path.as_ref())
            && self.is_here(volume)
        {
            make_directory(&source.path).await?;
        }
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        match api.create(&PostParams::default(), volume).await {
            Err(error) if errors::is_already_exists(&error) => return Ok(()),
            outcome => drop(outcome?),
        }
        let message = format!("Successfully provisioned volume {name}");
        self.0.recorder.object_event(claim, EventType::Normal, "ProvisioningSucceeded", message);
        Ok(())
    }

    /// Whether the volume is on the machine that this process runs on.
    fn is_here(&self, volume: &PersistentVolume) -> bool {
        let Some(host) = host_of(volume) else { return false };
        let nodes = self.0.nodes.store().list();
        let named = |node: &&Arc<Node>| meta::label(&node.metadata, HOST_NAME) == Some(host);
        let node = nodes.iter().find(named);
        let info = node.and_then(|node| node.status.as_ref()?.node_info.as_ref());
        !self.0.boot_id.is_empty() && info.is_some_and(|info| info.boot_id == self.0.boot_id)
    }

    async fn volume(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(volume) = self.0.volumes.store().get(&key) else { return Ok(Action::Done) };
        let Some(path) = to_delete(&volume).filter(|_| !meta::is_deleting(&volume.metadata)) else {
            return Ok(Action::Done);
        };
        if !self.is_here(&volume) {
            let host = host_of(&volume).unwrap_or_default();
            let message = format!("remove {path} of {host} by hand, then delete the volume");
            self.0.recorder.object_event(&*volume, EventType::Warning, "VolumeFailedDelete", message);
            return Ok(Action::Done);
        }
        match tokio::fs::remove_dir_all(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("{path}: {error}");
                self.0.recorder.object_event(&*volume, EventType::Warning, "VolumeFailedDelete", message);
                return Err(error.into());
            }
            _ => {}
        }
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        api.delete(&key.name, &DeleteParams::default()).await.ignore_not_found()?;
        Ok(Action::Done)
    }
}

/// Makes a directory that everybody may write to.
async fn make_directory(path: &str) -> std::io::Result<()> {
    tokio::fs::create_dir_all(path).await?;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn class(more: Value) -> StorageClass {
        let mut class = json!({ "metadata": { "name": "standard" }, "provisioner": PROVISIONER,
                                "parameters": { "path": "/data/" } });
        for (key, value) in more.as_object().into_iter().flatten() {
            class[key] = value.clone();
        }
        serde_json::from_value(class).unwrap()
    }

    fn claim(provisioner: &str, node: Option<&str>, more: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": "u",
                          "annotations": { STORAGE_PROVISIONER: provisioner } },
            "spec": { "storageClassName": "standard", "accessModes": ["ReadWriteOnce"],
                      "resources": { "requests": { "storage": "1Gi" } } },
        });
        if let Some(node) = node {
            claim["metadata"]["annotations"][SELECTED_NODE] = json!(node);
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            claim["spec"][key] = value.clone();
        }
        serde_json::from_value(claim).unwrap()
    }

    fn node(name: &str) -> Option<Arc<Node>> {
        let metadata = json!({ "name": name, "labels": { HOST_NAME: format!("{name}.example") } });
        (name == "n1").then(|| Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap()))
    }

    #[test]
    fn a_directory_of_the_chosen_node_is_made() {
        let Plan::Make(volume) =
            plan(&claim(PROVISIONER, Some("n1"), json!({})), Some(&class(json!({}))), node)
        else {
            panic!("it is made")
        };
        assert_eq!(host_of(&volume), Some("n1.example"));
        let spec = volume.spec.as_ref().unwrap();
        assert_eq!(spec.host_path.as_ref().unwrap().path, "/data/pvc-u");
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        assert_eq!(spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_deref()), Some("u"));
        assert_eq!(claims::capacity(&volume).to_string(), "1Gi");
    }

    #[test]
    fn what_a_directory_cannot_be_is_refused() {
        let ours = |more: Value| claim(PROVISIONER, Some("n1"), more);
        let refused = |plan: Plan| matches!(plan, Plan::Refuse(_));
        for claim in [
            ours(json!({ "accessModes": ["ReadWriteMany"] })),
            ours(json!({ "volumeMode": "Block" })),
            ours(json!({ "dataSource": { "kind": "VolumeSnapshot", "name": "s" } })),
            claim(PROVISIONER, None, json!({})),
        ] {
            assert!(refused(plan(&claim, Some(&class(json!({}))), node)), "{claim:?}");
        }
        for class in [class(json!({ "parameters": {} })), class(json!({ "mountOptions": ["ro"] }))] {
            assert!(refused(plan(&ours(json!({})), Some(&class), node)), "{class:?}");
        }
    }

    #[test]
    fn claims_of_others_and_claims_that_have_a_volume_are_left_alone() {
        let nothing = |claim: PersistentVolumeClaim| {
            assert_eq!(plan(&claim, Some(&class(json!({}))), node), Plan::Nothing);
        };
        nothing(claim("example.com/other", Some("n1"), json!({})));
        nothing(claim(PROVISIONER, Some("n1"), json!({ "volumeName": "v" })));
        let gone = plan(&claim(PROVISIONER, Some("n2"), json!({})), Some(&class(json!({}))), node);
        let Plan::ChooseAgain(claim) = gone else { panic!("the node is gone") };
        assert_eq!(meta::annotation(&claim.metadata, SELECTED_NODE), None);
    }

    #[test]
    fn only_directories_made_here_are_removed() {
        let volume =
            |name: &str, provisioner: &str, path: &str, phase: &str, policy: &str| -> PersistentVolume {
                serde_json::from_value(json!({
                    "metadata": { "name": name, "annotations": { PROVISIONED_BY: provisioner } },
                    "spec": { "hostPath": { "path": path }, "persistentVolumeReclaimPolicy": policy },
                    "status": { "phase": phase },
                }))
                .unwrap()
            };
        for (name, provisioner, path, phase, policy, expected) in [
            ("pvc-u", PROVISIONER, "/data/pvc-u", "Released", "Delete", true),
            ("pvc-u", PROVISIONER, "/data/pvc-u", "Bound", "Delete", false),
            ("pvc-u", PROVISIONER, "/data/pvc-u", "Released", "Retain", false),
            ("pvc-u", "example.com/other", "/data/pvc-u", "Released", "Delete", false),
            ("pvc-u", PROVISIONER, "/etc", "Released", "Delete", false),
            ("pvc-u", PROVISIONER, "/data/../pvc-u", "Released", "Delete", false),
            ("pvc-u", PROVISIONER, "data/pvc-u", "Released", "Delete", false),
        ] {
            let volume = volume(name, provisioner, path, phase, policy);
            assert_eq!(to_delete(&volume).is_some(), expected, "{path} {phase} {policy}");
        }
    }
}
