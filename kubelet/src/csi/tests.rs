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
use tonic::{Request, Response, Status};

use super::*;
use crate::fake_api::FakeApi;

/// A driver that writes down what it is asked, and fails on request.
#[derive(Clone, Default)]
pub(crate) struct Driver {
    calls: Arc<Mutex<Vec<String>>>,
    failing: Arc<Mutex<Option<&'static str>>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Driver {
    fn call(&self, what: &'static str, more: &str) -> Result<(), Status> {
        self.calls.lock().push(format!("{what} {more}"));
        match *self.failing.lock() {
            Some(failing) if failing == what => Err(Status::internal("scripted")),
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
        _: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        Err(Status::unimplemented("not asked"))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let stage = Rpc { r#type: Capability::StageUnstageVolume as i32 };
        let capabilities = vec![NodeServiceCapability { r#type: Some(Type::Rpc(stage)) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
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
    let wanted = Wanted { pod: &pod, source, read_only: false, group: None, on_root_mismatch: false };
    story.csi.set_up(wanted).await.expect("mounted");
    assert_eq!(story.driver.took()[1], "publish vol-1 kubernetes.io~csi/pv1/mount  xvdb 1");
    story.csi.await_no_more("u1");
    assert_eq!(story.csi.volumes_in_use(), [name], "it is used");
    story.csi.tear_down("u1").await.expect("taken down");
    assert!(story.csi.volumes_in_use().is_empty());
}
