//! Volumes of a scripted driver, from its registration to the last pod that used it.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use parking_lot::Mutex;
use proto::csi::node_server::{Node as NodeService, NodeServer};
use proto::csi::node_service_capability::{Rpc, Type, rpc::Type as Capability};
use proto::csi::*;
use serde_json::json;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::fake_api::FakeApi;

/// A driver that writes down what it is asked, and fails on request.
#[derive(Clone, Default)]
pub(crate) struct Driver {
    calls: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<Option<&'static str>>>,
    /// How it fails.
    code: Arc<Mutex<Option<Code>>>,
    /// It knows nothing of volumes that grow.
    rigid: Arc<Mutex<bool>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Driver {
    fn call(&self, what: &'static str, more: &str) -> Result<(), Status> {
        self.calls.lock().push(format!("{what} {more}"));
        match *self.failing.lock() {
            Some(failing) if failing == what => {
                Err(Status::new(self.code.lock().unwrap_or(Code::Internal), "scripted"))
            }
            _ => Ok(()),
        }
    }

    fn took(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }
}

/// The last parts of a path, which are the same on every run.
fn tail(path: &str) -> String {
    let parts: Vec<_> = path.rsplit('/').take(3).collect();
    parts.into_iter().rev().map(|p| if p.len() == 64 { "SHA" } else { p }).collect::<Vec<_>>().join("/")
}

#[tonic::async_trait]
impl NodeService for Driver {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        let r = request.into_inner();
        self.call("stage", &format!("{} {}", r.volume_id, tail(&r.staging_target_path)))?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        let r = request.into_inner();
        self.call("unstage", &format!("{} {}", r.volume_id, tail(&r.staging_target_path)))?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let r = request.into_inner();
        let info = r.volume_context.get("csi.storage.k8s.io/pod.name").cloned().unwrap_or_default();
        let context = r.publish_context.get("device").cloned().unwrap_or_default();
        let mode = r.volume_capability.and_then(|c| c.access_mode).map(|m| m.mode).unwrap_or_default();
        self.call("publish", &format!("{} {} {info} {context} {mode}", r.volume_id, tail(&r.target_path)))?;
        std::fs::create_dir_all(&r.target_path)?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let r = request.into_inner();
        self.call("unpublish", &format!("{} {}", r.volume_id, tail(&r.target_path)))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        let r = request.into_inner();
        let size = r.capacity_range.unwrap_or_default().required_bytes >> 30;
        let (path, staging) = (tail(&r.volume_path), tail(&r.staging_target_path));
        self.call("expand", &format!("{} {path} {staging} {size}Gi", r.volume_id))?;
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes: 0 }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let rigid = *self.rigid.lock();
        let can = [Capability::StageUnstageVolume, Capability::ExpandVolume];
        let can = can.into_iter().filter(|can| !rigid || *can != Capability::ExpandVolume);
        let rpc = |can| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: can as i32 })) };
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities: can.map(rpc).collect() }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: "id-of-n1".into(),
            max_volumes_per_node: 3,
            accessible_topology: None,
        }))
    }
}

struct Story {
    driver: Driver,
    socket: PathBuf,
    api: FakeApi,
    csi: Csi,
    node: Arc<Mutex<Option<Arc<Node>>>>,
    root: PathBuf,
    _stop: DropGuard,
}

impl Story {
    async fn new() -> Self {
        let root = std::env::temp_dir().join(format!("csi-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&root).expect("create");
        let socket = root.join("csi.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let (driver, token) = (Driver::default(), CancellationToken::new());
        let (service, stop) = (driver.clone(), token.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(NodeServer::new(service));
            let served = server
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned());
            served.await.expect("the driver serves");
        });
        let (api, node) = (FakeApi::default(), Arc::default());
        let csi = Self::csi(&root, &api, &node);
        Self { driver, socket, api, csi, node, root, _stop: token.drop_guard() }
    }

    fn csi(root: &Path, api: &FakeApi, node: &Arc<Mutex<Option<Arc<Node>>>>) -> Csi {
        let seen = node.clone();
        Csi::new(Deps {
            client: Some(api.client()),
            node_name: "n1".into(),
            layout: Layout::new(root.join("lib"), root.join("logs"), root.join("links")),
            node: Arc::new(move || seen.lock().clone()),
            poke: Arc::default(),
            recorder: None,
        })
    }

    /// The same node after a restart of the kubelet.
    fn restart(&mut self) {
        self.csi = Self::csi(&self.root, &self.api, &self.node);
    }

    async fn register(&self) {
        self.api.answer(200, json!({"metadata": {"name": "n1", "uid": "node-uid"}}));
        self.api.answer(200, json!({"metadata": {"name": "n1"}}));
        self.api.answer(
            200,
            json!({"metadata": {"name": "n1", "resourceVersion": "5"}, "spec": {"drivers": []}}),
        );
        self.api.answer(200, json!({"metadata": {"name": "n1"}, "spec": {"drivers": []}}));
        self.csi.register("d.example", &self.socket, &["1.0.0".into()]).await.expect("registered");
    }

    async fn set_up(&self, uid: &str, driver: &str) -> Result<crate::volumes::MountInfo, Reason> {
        self.api.answer(200, serde_json::from_str(driver).expect("JSON"));
        let (pod, pv) = (pod(uid), volume());
        let csi = pv.spec.as_ref().and_then(|s| s.csi.as_ref()).expect("a driver's");
        let wanted = Wanted {
            pod: &pod,
            source: Source::Persistent(&pv, csi),
            claim: None,
            read_only: false,
            group: None,
            on_root_mismatch: false,
        };
        self.csi.set_up(wanted).await
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.root));
    }
}

const UNATTACHED: &str =
    r#"{"metadata": {"name": "d.example"}, "spec": {"attachRequired": false, "podInfoOnMount": true}}"#;
const ATTACHED: &str = r#"{"metadata": {"name": "d.example"}, "spec": {"attachRequired": true}}"#;

fn pod(uid: &str) -> Pod {
    serde_saphyr::from_str(&format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}}}\nspec: {{containers: []}}"
    ))
    .expect("valid")
}

fn volume() -> PersistentVolume {
    serde_saphyr::from_str(
        "metadata: {name: pv1}\nspec: {accessModes: [ReadWriteOnce], csi: {driver: d.example, volumeHandle: vol-1}}",
    )
    .expect("valid")
}

#[tokio::test]
async fn the_api_is_told_of_a_driver() {
    let story = Story::new().await;
    story.register().await;
    let asked = story.api.asked(4).await;
    let what: Vec<_> = asked.iter().map(|a| a.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "GET /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1",
            "GET /apis/storage.k8s.io/v1/csinodes/n1",
            "PUT /apis/storage.k8s.io/v1/csinodes/n1"
        ]
    );
    let ids = &asked[1].body["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"];
    assert_eq!(ids, r#"{"d.example":"id-of-n1"}"#);
    assert_eq!(
        asked[3].body["spec"]["drivers"],
        json!([{"name": "d.example", "nodeID": "id-of-n1", "allocatable": {"count": 3}}])
    );
    let refused = story.csi.register("d.example", &story.socket, &["0.3.0".into()]).await;
    assert!(refused.is_err_and(|e| e.contains("None of the versions specified")));
}

#[tokio::test]
async fn a_volume_is_staged_once_and_unstaged_with_its_last_pod() {
    let story = Story::new().await;
    story.register().await;
    let info = story.set_up("u1", UNATTACHED).await.expect("mounted");
    assert!(info.host_path.ends_with("pods/u1/volumes/kubernetes.io~csi/pv1/mount"));
    assert_eq!(
        story.driver.took(),
        ["stage vol-1 d.example/SHA/globalmount", "publish vol-1 kubernetes.io~csi/pv1/mount p-u1  1"]
    );
    story.set_up("u2", UNATTACHED).await.expect("mounted");
    story.driver.took();
    story.csi.tear_down("u1").await.expect("taken down");
    assert_eq!(story.driver.took(), ["unpublish vol-1 kubernetes.io~csi/pv1/mount"], "another pod uses it");
    story.csi.tear_down("u2").await.expect("taken down");
    assert_eq!(
        story.driver.took(),
        ["unpublish vol-1 kubernetes.io~csi/pv1/mount", "unstage vol-1 d.example/SHA/globalmount"]
    );
    story.csi.tear_down("u2").await.expect("nothing left");
    assert!(story.driver.took().is_empty());
    assert!(disk::used(&story.csi.inner.deps.layout).is_empty());
    assert!(!disk::staging(&story.csi.inner.deps.layout, "d.example", "vol-1").exists());
}

#[tokio::test]
async fn what_failed_is_taken_down_after_a_restart() {
    let mut story = Story::new().await;
    story.register().await;
    *story.driver.failing.lock() = Some("publish");
    let error = story.set_up("u1", UNATTACHED).await.expect_err("scripted");
    assert_eq!(error.to_string(), "rpc error: code = Internal desc = scripted");
    story.restart();
    let refused = story.csi.tear_down("u1").await.expect_err("no driver");
    assert!(
        refused.contains("driver name d.example not found in the list of registered CSI drivers"),
        "{refused}"
    );
    story.register().await;
    story.driver.took();
    *story.driver.failing.lock() = Some("unstage");
    assert!(story.csi.tear_down("u1").await.is_err());
    *story.driver.failing.lock() = None;
    story.driver.took();
    story.csi.tear_down("u1").await.expect("taken down");
    assert_eq!(story.driver.took().len(), 2, "both are asked again");
    assert!(disk::used(&story.csi.inner.deps.layout).is_empty());
}

#[tokio::test]
async fn an_attached_volume_is_waited_for_and_held() {
    let story = Story::new().await;
    story.register().await;
    let name = "kubernetes.io/csi/d.example^vol-1";
    let refused = story.set_up("u1", ATTACHED).await.expect_err("not attached");
    assert!(matches!(refused, Reason::NotYet(_)));
    assert_eq!(story.csi.volumes_in_use(), [name], "it must not be detached from now on");
    let node =
        format!("status: {{volumesInUse: [{name}], volumesAttached: [{{name: {name}, devicePath: ''}}]}}");
    *story.node.lock() = Some(Arc::new(serde_saphyr::from_str(&node).expect("valid")));
    // The attachment is asked for after the driver's object.
    let attachment = json!({
        "metadata": {"name": "a"}, "spec": {"attacher": "d.example", "nodeName": "n1", "source": {}},
        "status": {"attached": true, "attachmentMetadata": {"device": "xvdb"}},
    });
    story.api.answer(200, serde_json::from_str(ATTACHED).expect("JSON"));
    story.api.answer(200, attachment);
    let (pod, pv) = (pod("u1"), volume());
    let csi = pv.spec.as_ref().and_then(|s| s.csi.as_ref()).expect("a driver's");
    let source = Source::Persistent(&pv, csi);
    let wanted =
        Wanted { pod: &pod, source, claim: None, read_only: false, group: None, on_root_mismatch: false };
    story.csi.set_up(wanted).await.expect("mounted");
    assert_eq!(story.driver.took()[1], "publish vol-1 kubernetes.io~csi/pv1/mount  xvdb 1");
    story.csi.await_no_more("u1");
    assert_eq!(story.csi.volumes_in_use(), [name], "it is used");
    story.csi.tear_down("u1").await.expect("taken down");
    assert!(story.csi.volumes_in_use().is_empty());
}

/// A claim of `pv1` whose status has this capacity, and what is said of its growth to 2 GiB.
fn claim(capacity: &str, state: &str) -> serde_json::Value {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "uid-c", "resourceVersion": "7"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, "volumeName": "pv1"},
        "status": {"phase": "Bound", "capacity": {"storage": capacity}, "allocatedResources": {"storage": "2Gi"},
                   "conditions": [{"type": "FileSystemResizePending", "status": "True"}]},
    });
    if !state.is_empty() {
        claim["status"]["allocatedResourceStatuses"] = json!({"storage": state});
    }
    claim
}

fn grown_volume() -> serde_json::Value {
    json!({"metadata": {"name": "pv1"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
        "claimRef": {"name": "c", "namespace": "ns", "uid": "uid-c"},
        "csi": {"driver": "d.example", "volumeHandle": "vol-1"}}})
}

fn pod_of_claim(uid: &str) -> Pod {
    let text = format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}}}\n\
         spec: {{containers: [], volumes: [{{name: v, persistentVolumeClaim: {{claimName: c}}}}]}}"
    );
    serde_saphyr::from_str(&text).expect("valid")
}

impl Story {
    /// Mounts `pv1`, which has grown, for a pod that uses its claim; the API answers changes of the claim so.
    async fn set_up_claim(
        &self,
        claim: &serde_json::Value,
        answers: &[serde_json::Value],
    ) -> Result<(), String> {
        self.api.answer(200, serde_json::from_str(UNATTACHED).expect("JSON"));
        answers.iter().for_each(|answer| self.api.answer(200, answer.clone()));
        let (pod, pv): (_, PersistentVolume) =
            (pod_of_claim("u1"), serde_json::from_value(grown_volume()).expect("valid"));
        let claim = serde_json::from_value(claim.clone()).expect("valid");
        let csi = pv.spec.as_ref().and_then(|s| s.csi.as_ref()).expect("a driver's");
        let wanted = Wanted {
            pod: &pod,
            source: Source::Persistent(&pv, csi),
            claim: Some(&claim),
            read_only: false,
            group: None,
            on_root_mismatch: false,
        };
        self.csi.set_up(wanted).await.map(drop).map_err(|error| error.to_string())
    }

    /// Looks after the volumes of the running pod, whose claim is like this.
    async fn look_again(&self, claim: &serde_json::Value, answers: &[serde_json::Value]) {
        self.api.answer(200, grown_volume());
        self.api.answer(200, claim.clone());
        answers.iter().for_each(|answer| self.api.answer(200, answer.clone()));
        self.csi.grow_mounted(&pod_of_claim("u1")).await;
    }

    /// What the status of the claim was changed by, so far.
    async fn told(&self) -> Vec<serde_json::Value> {
        let asked = self.api.asked(0).await;
        let changes =
            asked.into_iter().filter(|asked| asked.what.ends_with("persistentvolumeclaims/c/status"));
        changes.map(|asked| asked.body["status"].clone()).collect()
    }
}

const GROWN: &str = "expand vol-1 kubernetes.io~csi/pv1/mount d.example/SHA/globalmount 2Gi";

fn steps() -> [serde_json::Value; 2] {
    [
        json!({"allocatedResourceStatuses": {"storage": "NodeResizeInProgress"}}),
        json!({"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": null},
               "conditions": [{"$patch": "delete", "type": "FileSystemResizePending"}]}),
    ]
}

#[tokio::test]
async fn a_volume_that_has_grown_is_told_so_when_it_is_mounted() {
    let story = Story::new().await;
    story.register().await;
    let answers = [claim("1Gi", "NodeResizeInProgress"), claim("2Gi", "")];
    story.set_up_claim(&claim("1Gi", "NodeResizePending"), &answers).await.expect("mounted");
    assert_eq!(story.driver.took()[2], GROWN);
    assert_eq!(story.told().await, steps());
    // A size that the claim shows needs nothing more.
    story.csi.tear_down("u1").await.expect("taken down");
    story.driver.took();
    story.set_up_claim(&claim("2Gi", ""), &[]).await.expect("mounted");
    assert_eq!(story.driver.took().len(), 2);
}

#[tokio::test]
async fn a_volume_grows_while_a_pod_uses_it() {
    let story = Story::new().await;
    story.register().await;
    story.set_up_claim(&claim("1Gi", "ControllerResizeInProgress"), &[]).await.expect("mounted");
    assert_eq!(story.driver.took().len(), 2, "it has not grown yet");
    let answers = [claim("1Gi", "NodeResizeInProgress"), claim("2Gi", "")];
    story.look_again(&claim("1Gi", "NodeResizePending"), &answers).await;
    assert_eq!(story.driver.took(), [GROWN]);
    assert_eq!(story.told().await, steps());
    story.look_again(&claim("2Gi", ""), &[]).await;
    assert!(story.driver.took().is_empty());
    story.csi.tear_down("u1").await.expect("taken down");
    story.driver.took();
    let asked = story.api.asked(0).await.len();
    story.csi.grow_mounted(&pod_of_claim("u1")).await;
    assert_eq!((story.api.asked(0).await.len(), story.driver.took().len()), (asked, 0), "nothing is left");
}

#[tokio::test]
async fn how_a_volume_failed_to_grow_is_written_down() {
    for (code, state, starts, again) in [
        (Code::Internal, None, false, true),
        (Code::OutOfRange, Some("NodeResizeInfeasible"), false, true),
        (Code::FailedPrecondition, None, true, false),
    ] {
        let story = Story::new().await;
        story.register().await;
        *story.driver.failing.lock() = Some("expand");
        *story.driver.code.lock() = Some(code);
        let pending = claim("1Gi", "NodeResizePending");
        let mounted = story.set_up_claim(&pending, &[pending.clone(), pending.clone()]).await;
        assert_eq!(mounted.is_ok(), starts, "{code:?}: {mounted:?}");
        let told = story.told().await;
        let condition = &told[1]["conditions"][0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("NodeResizeError"), &json!("True")));
        let message = condition["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("failed to expand pvc with Expander.NodeExpand failed to expand the volume")
        );
        let state = state.map_or(json!(null), |state| json!({"storage": state}));
        assert_eq!(told[1]["allocatedResourceStatuses"], state, "{code:?}");
        story.driver.took();
        story.look_again(&pending, &[pending.clone(), pending.clone()]).await;
        assert_eq!(!story.driver.took().is_empty(), again, "{code:?}");
    }
}

#[tokio::test]
async fn an_older_resizer_leaves_it_to_the_node_and_a_rigid_driver_has_nothing_to_do() {
    let mut plain = claim("1Gi", "");
    plain["status"]["allocatedResources"].take();
    let story = Story::new().await;
    story.register().await;
    story.set_up_claim(&plain, &[claim("2Gi", "")]).await.expect("mounted");
    assert_eq!(story.driver.took()[2], GROWN);
    assert_eq!(story.told().await[0]["capacity"], json!({"storage": "2Gi"}));

    let story = Story::new().await;
    *story.driver.rigid.lock() = true;
    story.register().await;
    story.set_up_claim(&plain, &[]).await.expect("mounted");
    assert_eq!((story.driver.took().len(), story.told().await.len()), (2, 0));
}
