//! Pods that ask for devices of a plugin, from their admission to their end.

use super::*;
use crate::devices::testing::{Plugin, until};

const NAME: &str = "example.com/dongle";

fn asks(uid: &str, spec: &str) -> Arc<Pod> {
    let text = format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}, annotations: {{kubernetes.io/config.source: api}}}}\n\
         spec: {{dnsPolicy: Default, terminationGracePeriodSeconds: 5, {spec}}}"
    );
    Arc::new(serde_saphyr::from_str(&text).expect("valid pod"))
}

fn one(count: usize) -> String {
    format!(
        "containers: [{{name: a, image: 'here:1', env: [{{name: OWN, value: $(DONGLES)}}], {}}}]",
        limit(count)
    )
}

fn limit(count: usize) -> String {
    format!("resources: {{requests: {{{NAME}: {count}}}, limits: {{{NAME}: {count}}}}}")
}

async fn plugin(house: &House, has: &str) -> Plugin {
    house.devices.serve(&house.tasks).expect("serves");
    let plugin = Plugin::start(&house.devices, NAME, has).await;
    until(&house.devices, |d| d.capacity().resources.get(NAME).is_some_and(|(all, _)| *all > 0)).await;
    plugin
}

#[tokio::test]
async fn a_pod_gets_its_devices_and_gives_them_back() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    drop(house.agent.start_workers(Intervals::default(), &house.tasks));
    house.agent.inner.admission.lock().complete = true;
    let plugin = plugin(&house, "d1 d2").await;
    let first = asks("u", &one(2));
    assert!(admit(&house, &first).await);
    assert_eq!(plugin.calls(), ["allocate d1 d2"]);
    house.sync(&first).await.expect("synced");
    let config = fake.state.lock().configs.values().next().cloned().expect("created");
    let env: Vec<_> = config.envs.iter().map(|e| (e.key.as_str(), e.value.clone())).collect();
    assert_eq!(env[0], ("DONGLES", "d1,d2".into()));
    assert_eq!(config.devices[1].container_path, "/dev/d2");
    assert!(config.mounts.iter().any(|m| m.container_path == "/lib/dongle" && m.readonly));
    assert_eq!(config.annotations["example.com/dongles"], "d1,d2");
    assert_eq!(config.cdi_devices[0].name, "example.com/dongle=d1");
    let status = house.agent.parts().status.pod_status("u").expect("reported");
    let health = status.container_statuses.as_ref().and_then(|s| s[0].allocated_resources_status.as_ref());
    assert_eq!(health.map(|h| h[0].name.as_str()), Some(NAME));

    let second = asks("v", &one(1));
    assert!(!admit(&house, &second).await);
    assert_eq!(house.phase("v"), "Failed UnexpectedAdmissionError");
    let status = house.agent.parts().status.pod_status("v").expect("reported");
    assert_eq!(
        status.message.as_deref(),
        Some(
            "Pod was rejected: Allocate failed due to requested number of devices unavailable for \
             example.com/dongle. Requested: 1, Available: 0, which is unexpected"
        )
    );
    house.agent.pod_removed(&first);
    let third = asks("w", &one(2));
    assert!(admit(&house, &third).await, "what the first had is free");
    assert_eq!(house.devices.holders(), ["w".to_owned()].into());
    house.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn init_containers_pass_their_devices_on() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    drop(house.agent.start_workers(Intervals::default(), &house.tasks));
    let plugin = plugin(&house, "d1 d2").await;
    let spec = format!(
        "initContainers: [{{name: i, image: 'here:1', {two}}}, {{name: s, image: 'here:1', restartPolicy: Always, {one}}}], \
         containers: [{{name: a, image: 'here:1', {one}}}]",
        one = limit(1),
        two = limit(2)
    );
    assert!(admit(&house, &asks("u", &spec)).await);
    assert_eq!(plugin.calls(), ["allocate d1 d2", "allocate d1", "allocate d2"]);
    let short = spec.replace(
        &format!("containers: [{{name: a, image: 'here:1', {}", limit(1)),
        &format!("containers: [{{name: a, image: 'here:1', {}", limit(2)),
    );
    house.devices.retain(|_| false);
    assert!(!admit(&house, &asks("v", &short)).await, "the sidecar keeps one");
    house.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn what_runs_keeps_its_devices_over_a_restart_without_the_plugin() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let root = std::env::temp_dir().join(format!("devices-agent-{}", uuid::Uuid::new_v4()));
    let groups = || {
        let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
        Cgroups::new(settings).expect("the hierarchy is mounted")
    };
    let records = || (Record::in_memory(), Record::in_memory());
    let first = house_at(&fake, groups(), records(), Some(root.clone()));
    drop(first.agent.start_workers(Intervals::default(), &first.tasks));
    let there = plugin(&first, "d1").await;
    let pod = asks("u", &one(1));
    assert!(admit(&first, &pod).await);
    first.sync(&pod).await.expect("synced");
    first.tasks.shut_down().await.expect("no failure");
    drop(there);
    fake.calls();

    let again = house_at(&fake, groups(), records(), Some(root.clone()));
    drop(again.agent.start_workers(Intervals::default(), &again.tasks));
    assert!(admit(&again, &pod).await);
    again.sync(&pod).await.expect("synced");
    assert!(fake.calls().is_empty(), "nothing is disturbed");
    assert_eq!(again.devices.holders(), ["u".to_owned()].into());
    again.tasks.shut_down().await.expect("no failure");
    std::fs::remove_dir_all(root).expect("remove");
}

/// Whether the pod, which is known from now on, is admitted.
async fn admit(house: &House, pod: &Arc<Pod>) -> bool {
    house.agent.parts().pods.upsert(pod.clone());
    house.agent.admit(pod).await
}
