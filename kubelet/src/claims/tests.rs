//! Claims of a scripted driver, from their first pod to their last.

use serde_json::json;

use super::testing::{Plugin, claim};
use super::*;
use crate::fake_api::FakeApi;
use crate::volumes::testing::Scratch;

const V1: &str = "v1.DRAPlugin";

struct Story {
    api: FakeApi,
    plugin: Plugin,
    claims: Claims,
    scratch: Scratch,
    tasks: Tasks,
}

impl Story {
    fn new() -> Self {
        let (api, scratch, tasks) = (FakeApi::default(), Scratch::new(), Tasks::new());
        let plugin = Plugin::start(scratch.path());
        let claims = Self::open(&api, &scratch, &tasks);
        Self { api, plugin, claims, scratch, tasks }
    }

    fn open(api: &FakeApi, scratch: &Scratch, tasks: &Tasks) -> Claims {
        Claims::open(Some(api.client()), "n1".into(), scratch.path(), tasks).expect("opened")
    }

    /// The same node after a restart of the kubelet.
    fn restart(&mut self) {
        self.claims = Self::open(&self.api, &self.scratch, &self.tasks);
    }

    fn register(&self) {
        self.claims.register("d.example", &self.plugin.socket, &[V1.into()]).expect("registered");
    }

    async fn prepare(&self, pod: &Pod, claims: &[serde_json::Value]) -> Result<(), String> {
        claims.iter().for_each(|claim| self.api.answer(200, claim.clone()));
        self.claims.prepare(pod).await
    }
}

/// A pod with one claim made for it and one that is shared.
fn pod(uid: &str) -> Pod {
    let text = format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}}}\n\
         spec:\n  resourceClaims: [{{name: own, resourceClaimTemplateName: t}}, {{name: shared, resourceClaimName: shared}}]\n\
         \x20 containers:\n\
         \x20 - {{name: a, resources: {{claims: [{{name: own, request: two}}, {{name: shared}}]}}}}\n\
         \x20 - {{name: b}}\n\
         status: {{resourceClaimStatuses: [{{name: own, resourceClaimName: own-{uid}}}]}}"
    );
    serde_saphyr::from_str(&text).expect("valid")
}

fn containers(pod: &Pod) -> &[Container] {
    &types::spec(pod).containers
}

#[tokio::test]
async fn claims_are_prepared_once_and_taken_back_with_their_last_pod() {
    let story = Story::new();
    story.register();
    let (first, second) = (pod("u1"), pod("u2"));
    let shared = claim("shared", &["u1", "u2"]);
    story.prepare(&first, &[claim("own-u1", &["u1"]), shared.clone()]).await.expect("prepared");
    assert_eq!(story.plugin.calls(), ["prepare own-u1 shared"]);
    let names = story.claims.cdi_devices(&first, &containers(&first)[0]).expect("known");
    assert_eq!(names, ["d.example/dev=own-u1-two", "d.example/dev=shared-one", "d.example/dev=shared-two"]);
    assert!(story.claims.cdi_devices(&first, &containers(&first)[1]).expect("none").is_empty());
    let used = story.claims.of_container(&first, &containers(&first)[0]);
    assert_eq!((used[0].name.as_str(), used[0].devices.len(), used.len()), ("own-u1", 2, 2));
    story.prepare(&second, &[claim("own-u2", &["u2"]), shared]).await.expect("prepared");
    assert_eq!(story.plugin.calls(), ["prepare own-u2"], "the other is prepared");
    story.claims.unprepare(&first).await.expect("taken back");
    assert_eq!(story.plugin.calls(), ["unprepare own-u1"], "the other is used");
    story.claims.unprepare(&first).await.expect("nothing left");
    assert!(story.plugin.calls().is_empty());
    story.claims.unprepare(&second).await.expect("taken back");
    assert_eq!(story.plugin.calls(), ["unprepare own-u2 shared"]);
    assert!(cache::read(&story.claims.inner.path).expect("valid").is_empty());
}

#[tokio::test]
async fn what_a_pod_may_not_use_leaves_no_trace() {
    let story = Story::new();
    let pod = pod("u1");
    let own = || claim("own-u1", &["u1"]);
    let others = || claim("shared", &["u2"]);
    let mut unallocated = claim("own-u1", &["u1"]);
    unallocated["status"]["allocation"].take();
    let refusals = [
        (vec![own()], "DRA driver d.example is not registered"),
        (
            vec![claim("own-u1", &["u2"])],
            "ResourceClaim ns/own-u1 was not created for Pod ns/p-u1 (Pod is not owner)",
        ),
        (vec![unallocated], "ResourceClaim own-u1: not allocated"),
        (vec![own(), others()], "pod p-u1 (u1) is not allowed to use ResourceClaim shared (uid-shared)"),
    ];
    for (number, (answers, message)) in refusals.into_iter().enumerate() {
        if number == 1 {
            story.register();
        }
        let refused = story.prepare(&pod, &answers).await;
        assert_eq!(refused, Err(format!("prepare dynamic resources: {message}")));
    }
    story.api.refuse(404, "NotFound");
    let refused = story.claims.prepare(&pod).await.expect_err("not there");
    assert!(refused.starts_with("prepare dynamic resources: fetch ResourceClaim own-u1: "), "{refused}");
    let mut early = pod.clone();
    early.status = None;
    let refused = story.claims.prepare(&early).await;
    assert_eq!(
        refused,
        Err("prepare dynamic resources: pod \"ns/p-u1\": ResourceClaim not created yet".to_owned())
    );
    story.claims.unprepare(&pod).await.expect("nothing to take back");
    assert!(story.plugin.calls().is_empty());
    assert!(story.claims.cdi_devices(&pod, &containers(&pod)[0]).is_err());
}

#[tokio::test]
async fn what_failed_is_asked_again_and_taken_back_after_a_restart() {
    let mut story = Story::new();
    story.register();
    let pod = pod("u1");
    let answers = || [claim("own-u1", &["u1"]), claim("shared", &["u1"])];
    for (said, message) in [
        ("broken", "NodePrepareResources failed for ResourceClaim shared: broken"),
        ("skip", "NodePrepareResources skipped 1 ResourceClaims"),
    ] {
        story.plugin.script.failing.lock().insert("shared".into(), said);
        let failed = story.prepare(&pod, &answers()).await;
        assert_eq!(failed, Err(format!("prepare dynamic resources: {message}")));
    }
    story.plugin.calls();
    story.restart();
    let failed = story.claims.unprepare(&pod).await;
    assert_eq!(failed, Err("unprepare dynamic resources: DRA driver d.example is not registered".to_owned()));
    story.register();
    let failed = story.claims.unprepare(&pod).await.expect_err("skipped");
    assert_eq!(failed, "unprepare dynamic resources: NodeUnprepareResources skipped 1 ResourceClaims");
    story.plugin.script.failing.lock().clear();
    story.plugin.calls();
    story.claims.reconcile(&|uid: &str| uid == "u1").await;
    assert!(story.plugin.calls().is_empty(), "the pod is there");
    story.claims.reconcile(&|_: &str| false).await;
    assert_eq!(story.plugin.calls(), ["unprepare own-u1 shared"]);
    assert!(story.claims.inner.cache.lock().is_empty());
}

#[tokio::test]
async fn what_was_prepared_is_known_after_a_restart() {
    let mut story = Story::new();
    story.register();
    let pod = pod("u1");
    let answers = || [claim("own-u1", &["u1"]), claim("shared", &["u1"])];
    story.prepare(&pod, &answers()).await.expect("prepared");
    story.restart();
    let names = story.claims.cdi_devices(&pod, &containers(&pod)[0]).expect("known");
    assert_eq!(names.len(), 3);
    story.register();
    story.prepare(&pod, &answers()).await.expect("prepared");
    assert_eq!(story.plugin.calls().len(), 2, "the driver is asked again, which does no harm");
    assert_eq!(story.claims.cdi_devices(&pod, &containers(&pod)[0]).expect("known"), names);
    let mut other = claim("shared", &["u1"]);
    other["metadata"]["uid"] = json!("another");
    let refused = story.prepare(&pod, &[claim("own-u1", &["u1"]), other]).await.expect_err("another claim");
    assert!(
        refused.contains("old ResourceClaim with same name shared and different UID uid-shared still exists")
    );
}

#[tokio::test]
async fn older_drivers_are_spoken_to_as_they_know() {
    let story = Story::new();
    let services = ["v1beta1.DRAPlugin".to_owned()];
    story.claims.register("d.example", &story.plugin.socket, &services).expect("registered");
    let again = story.claims.register("d.example", &story.plugin.socket, &services).expect_err("known");
    assert!(again.ends_with("already registered for DRA driver plugin d.example"), "{again}");
    let pod = pod("u1");
    story.prepare(&pod, &[claim("own-u1", &["u1"]), claim("shared", &["u1"])]).await.expect("prepared");
    story.claims.unprepare(&pod).await.expect("taken back");
    assert_eq!(story.plugin.calls(), ["prepare-v1beta1 own-u1 shared", "unprepare-v1beta1 own-u1 shared"]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_stays_away_has_no_devices() {
    let story = Story::new();
    story.register();
    story.claims.deregister("d.example", &story.plugin.socket);
    tokio::time::sleep(Duration::from_secs(20)).await;
    story.register();
    story.claims.reached("d.example", true).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    story.claims.deregister("d.example", &story.plugin.socket);
    story.api.refuse(503, "ServiceUnavailable");
    story.api.answer(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    let asked = story.api.asked(2).await;
    assert_eq!(asked[1].what, "DELETE /apis/resource.k8s.io/v1/resourceslices");
    assert_eq!(asked.len(), 2, "it came back the first time");
    story.api.answer(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    story.claims.run(|_| true, &story.tasks);
    let asked = story.api.asked(3).await;
    assert_eq!(asked[2].what, asked[1].what, "devices from before a restart");
    story.tasks.shut_down().await.expect("no failure");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_cannot_be_reached_has_no_devices_either() {
    let mut story = Story::new();
    story.register();
    story.claims.reached("d.example", true).await;
    for _ in 0..2 {
        // It dies and leaves its sockets; another takes its place in time.
        story.plugin.stop();
        story.claims.reached("d.example", false).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        story.plugin = Plugin::start_at(story.plugin.socket.clone());
        story.claims.reached("d.example", true).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    story.api.answer(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    let began = Instant::now();
    story.plugin.stop();
    let asked = story.api.asked(1).await;
    assert_eq!(asked[0].what, "DELETE /apis/resource.k8s.io/v1/resourceslices");
    assert!(began.elapsed() >= Duration::from_secs(30), "after {:?}", began.elapsed());
    // What is away stays so: it is forgotten once, and pods are still sent to it.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(story.api.asked(1).await.len(), 1);
    assert!(story.claims.driver("d.example").is_ok());
    story.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn of_several_plugins_the_last_that_can_be_reached_is_called() {
    let story = Story::new();
    let (first, second) = (&story.plugin, Plugin::start(story.scratch.path()));
    story.register();
    story.claims.register("d.example", &second.socket, &[V1.into()]).expect("registered");
    let called = || story.claims.driver("d.example").expect("registered");
    let until = |socket: PathBuf| {
        let claims = story.claims.clone();
        async move {
            let of = |driver: &Driver| driver.endpoint == socket;
            while !claims.driver("d.example").is_ok_and(|driver| of(&driver) && driver.is_connected()) {
                tokio::task::yield_now().await;
            }
        }
    };
    until(second.socket.clone()).await;
    second.stop();
    until(first.socket.clone()).await;
    first.stop();
    called().disconnected().await;
    assert_eq!(called().endpoint, second.socket, "nobody is there: the last");
    story.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn pods_are_told_how_their_devices_are() {
    let mut story = Story::new();
    story.register();
    let pod = pod("u1");
    story.prepare(&pod, &[claim("own-u1", &["u1"]), claim("shared", &["u1"])]).await.expect("prepared");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    story.claims.on_health(Box::new(move |uid| told.send(uid.to_owned()).expect("listened to")));
    let shown = |claims: &Claims| -> Vec<String> {
        let text = "containerStatuses: [{name: a, image: '', imageID: '', ready: true, restartCount: 0}, \
                    {name: b, image: '', imageID: '', ready: true, restartCount: 0}]";
        let mut status: PodStatus = serde_saphyr::from_str(text).expect("valid");
        claims.update_status(&pod, &mut status);
        // Once more: nothing is listed twice.
        claims.update_status(&pod, &mut status);
        let statuses = status.container_statuses.expect("set");
        assert_eq!(statuses[1].allocated_resources_status, None);
        let one = |status: &ResourceStatus| {
            let resources = status.resources.iter().flatten();
            let resources: Vec<_> = resources
                .map(|r| format!("{}={}", r.resource_id, r.health.as_deref().unwrap_or_default()))
                .collect();
            format!("{} {}", status.name, resources.join(" "))
        };
        statuses[0].allocated_resources_status.iter().flatten().map(one).collect()
    };
    assert_eq!(
        shown(&story.claims),
        [
            "claim:own/two d.example/dev=own-u1-two=Unknown",
            "claim:shared d.example/dev=shared-one=Unknown d.example/dev=shared-two=Unknown"
        ]
    );
    story.plugin.tell("own-u1-two:Healthy own-u1-one:Healthy shared-one:Unhealthy others:Healthy");
    assert_eq!(heard.recv().await.as_deref(), Some("u1"));
    let known = [
        "claim:own/two d.example/dev=own-u1-two=Healthy",
        "claim:shared d.example/dev=shared-one=Unhealthy d.example/dev=shared-two=Unknown",
    ];
    assert_eq!(shown(&story.claims), known);
    // Nothing the pod has is otherwise with the first; with the driver gone nothing is known.
    story.plugin.tell("own-u1-two:Healthy own-u1-one:Healthy shared-one:Unhealthy others:Unhealthy");
    story.claims.deregister("d.example", &story.plugin.socket);
    assert_eq!(heard.recv().await.as_deref(), Some("u1"));
    assert!(heard.try_recv().is_err());
    assert!(shown(&story.claims).iter().all(|line| !line.contains("ealthy")));
    // One that comes back tells everything again.
    let socket = story.plugin.socket.clone();
    story.claims.register("d.example", &socket, &[V1.into()]).expect("registered");
    assert_eq!(heard.recv().await.as_deref(), Some("u1"));
    assert_eq!(shown(&story.claims), known);
    story.plugin = Plugin::start(story.scratch.path());
    assert_eq!(heard.recv().await.as_deref(), Some("u1"), "its stream ended");
    story.tasks.shut_down().await.expect("no failure");
}

#[test]
fn extended_resources_are_requests_of_a_claim() {
    let pod: Pod = serde_saphyr::from_str(
        "metadata: {name: p, namespace: ns, uid: u}\n\
         spec: {containers: [{name: a, resources: {requests: {example.com/gpu: 1}}}, {name: b}]}\n\
         status: {extendedResourceClaimStatus: {resourceClaimName: c, requestMappings: \
         [{containerName: a, resourceName: example.com/gpu, requestName: r0}, \
         {containerName: b, resourceName: example.com/gpu, requestName: r1}]}}",
    )
    .expect("valid");
    assert_eq!(names(&pod), Ok(vec![("c".to_owned(), false)]));
    assert_eq!(requests(&pod, &containers(&pod)[0]), Ok(vec![("c".to_owned(), "r0".to_owned())]));
    assert_eq!(requests(&pod, &containers(&pod)[1]), Ok(vec![]));
}
