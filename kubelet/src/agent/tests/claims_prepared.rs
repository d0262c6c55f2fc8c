//! Pods with claims for devices of a driver, from their first sandbox to their end.

use std::sync::atomic::Ordering;

use super::kills::{STEPS, sync_up, take_down};
use super::*;
use crate::claims::testing::{Plugin, claim};
use crate::fake_api::FakeApi;
use crate::volumes::testing::Scratch;

const POD: &str = "  resourceClaims: [{name: gpu, resourceClaimName: gpu}]\n\
                   \x20 containers: [{name: a, image: 'here:1', resources: {claims: [{name: gpu, request: one}]}}]\n";

#[tokio::test]
async fn a_claim_is_prepared_before_the_pod_and_taken_back_after_it() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let api = FakeApi::default();
    let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
    let groups = Cgroups::new(settings).expect("the hierarchy is mounted");
    let given = Given { api: Some(api.client()), ..Given::default() };
    let house = house_given(&fake, groups, (Record::in_memory(), Record::in_memory()), None, given);
    let claims = &house.agent.parts().claims;
    let plugin = Plugin::start(&house.root);
    let pod = pod(POD);

    api.answer(200, claim("gpu", &["u"]));
    let error = house.sync(&pod).await.expect_err("no driver");
    let message = "Failed to prepare dynamic resources: prepare dynamic resources: DRA driver d.example is not registered";
    assert_eq!(error.message, message);
    assert_eq!(house.events.lines(), [format!("FailedPrepareDynamicResources: {message}")]);
    assert!(fake.calls().is_empty(), "nothing starts without its devices");

    claims.register("d.example", &plugin.socket, &["v1.DRAPlugin".into()]).expect("registered");
    api.answer(200, claim("gpu", &["u"]));
    house.sync(&pod).await.expect("synced");
    assert_eq!(plugin.calls(), ["prepare gpu"]);
    let config = fake.state.lock().configs.values().next().cloned().expect("created");
    let names: Vec<_> = config.cdi_devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["d.example/dev=gpu-one"]);
    house.sync(&pod).await.expect("synced");
    assert!(plugin.calls().is_empty(), "it runs");

    let stop = CancellationToken::new();
    plugin.script.failing.lock().insert("gpu".into(), "busy");
    let error = house.agent.sync_terminating_pod(&pod, None, None, &stop).await.expect_err("busy");
    assert_eq!(
        error.message,
        "unprepare dynamic resources: NodeUnprepareResources failed for ResourceClaim gpu: busy"
    );
    plugin.script.failing.lock().clear();
    house.agent.sync_terminating_pod(&pod, None, None, &stop).await.expect("stopped");
    assert_eq!(plugin.calls(), ["unprepare gpu", "unprepare gpu"]);
    house.agent.sync_terminated_pod(&pod).await.expect("released");
    house.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn kubelets_that_are_killed_leave_no_claim_behind() {
    let pod = pod(POD);
    let (mut started, mut stopped) = (false, false);
    for (step, lost) in (0..STEPS).flat_map(|step| [(step, false), (step, true)]) {
        let (fake, api, scratch) =
            (FakeRuntime::start(&["here:1"]).await, FakeApi::default(), Scratch::new());
        (0..STEPS).for_each(|_| api.answer(200, claim("gpu", &["u"])));
        let plugin = Plugin::start(scratch.path());
        let script = &plugin.script;
        let kubelet = |dies_after| {
            let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
            let groups = Cgroups::new(settings).expect("the hierarchy is mounted");
            let given = Given { api: Some(api.client()), ..Given::default() };
            let records = (Record::in_memory(), Record::in_memory());
            let house = house_given(&fake, groups, records, Some(scratch.path().join("kubelet")), given);
            let claims = &house.agent.parts().claims;
            claims.register("d.example", &plugin.socket, &["v1.DRAPlugin".into()]).expect("registered");
            fake.state.lock().dies_after = dies_after;
            house
        };
        script.lost.store(lost, Ordering::SeqCst);
        started = sync_up(&kubelet(Some(step)), &pod).await;
        let last = kubelet(None);
        assert!(sync_up(&last, &pod).await, "step {step}");
        assert!(script.prepared.lock().contains("gpu"), "step {step}");
        let configs = fake.state.lock().configs.values().cloned().collect::<Vec<_>>();
        let has_device = |config: &proto::cri::ContainerConfig| config.cdi_devices.len() == 1;
        assert!(configs.iter().all(has_device), "step {step}");
        let running = fake.state.lock().containers.values().filter(|(_, status)| status.state == 1).count();
        assert_eq!(running, 1, "step {step}");

        script.lost.store(lost, Ordering::SeqCst);
        stopped = take_down(&kubelet(Some(step)), &pod).await;
        let last = kubelet(None);
        // Where the kubelet died before it came to the driver, the answer is lost now.
        assert!(take_down(&last, &pod).await || take_down(&last, &pod).await, "step {step}");
        assert!(script.prepared.lock().is_empty(), "step {step}");
        let containers = &types::spec(&pod).containers;
        assert!(last.agent.parts().claims.of_container(&pod, &containers[0]).is_empty(), "step {step}");
        if started && stopped && !lost {
            break;
        }
    }
    assert!(started && stopped, "every step was tried");
}
