//! Pods with claims for devices of a driver, from their first sandbox to their end.

use super::*;
use crate::claims::testing::{Plugin, claim};
use crate::fake_api::FakeApi;

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
