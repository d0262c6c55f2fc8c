//! Upstream's cases for choosing and hinting over states, and plugins on real sockets.

use std::sync::atomic::AtomicUsize;

use proto::device_plugin::{ContainerAllocateResponse, DevicePluginOptions, RegisterRequest};

use super::choose::{Choice, Request, choose};
use super::state::GRACE;
use super::testing::{Plugin, device, register, until};
use super::*;
use crate::topology::NumaMask;

const NAME: &str = "example.com/dongle";

fn state(resources: &[(&str, &str)]) -> State {
    let mut state = State::default();
    for (name, devices) in resources {
        state.update(name, devices.split_whitespace().map(device).collect());
    }
    state
}

fn mask(nodes: &str) -> NumaMask {
    NumaMask::of(nodes.split(',').map(|n| n.parse().expect("a number")))
}

fn ids(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn give(state: &mut State, uid: &str, container: &str, name: &str, devices: &str) {
    state.give((uid, container), name, &ids(devices), ContainerAllocateResponse::default());
}

fn pod(spec: &str) -> Pod {
    serde_saphyr::from_str(&format!("metadata: {{name: p, namespace: ns, uid: u}}\nspec: {spec}"))
        .expect("valid")
}

fn wants(container: &str, count: usize) -> Container {
    serde_saphyr::from_str(&format!("name: {container}\nresources: {{limits: {{{NAME}: '{count}'}}}}"))
        .expect("valid")
}

fn shown(hints: Option<&Vec<Hint>>) -> String {
    let Some(hints) = hints else { return "any".to_owned() };
    let text = |hint: &Hint| {
        let nodes: Vec<_> = hint.affinity.expect("set").nodes().map(|n| n.to_string()).collect();
        format!("{}{}", nodes.join(","), if hint.preferred { "+" } else { "-" })
    };
    hints.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn hints_are_upstreams() {
    let four = "Dev1@0 Dev2@1 Dev3@0 Dev4@1";
    let halves = "Dev1@0 Dev2@0 Dev3@1 Dev4@1";
    // What is wanted, which devices there are, who has some, and the hints.
    let cases = [
        (1, "Dev1 Dev2 Dev3 Dev4", None, "any"),
        (1, "Dev1 Dev2@1", None, "1+"),
        (1, "Dev1@0 Dev2@1", None, "0+ 1+ 0,1-"),
        (2, "Dev1@0 Dev2@1", None, "0,1+"),
        (2, four, None, "0+ 1+ 0,1-"),
        (2, four, Some(("other", "Dev1 Dev2")), "0,1-"),
        (1, "Dev1@0", None, "0+"),
        (6, halves, None, ""),
        (2, "Dev1@0 Dev2@0", Some(("a", "Dev1 Dev2")), "0+"),
        (4, halves, Some(("a", "Dev1 Dev2")), ""),
        (2, halves, Some(("a", "Dev1 Dev2 Dev3 Dev4")), ""),
    ];
    for (wanted, devices, given, expected) in cases {
        let mut state = state(&[(NAME, devices)]);
        if let Some((container, devices)) = given {
            give(&mut state, "u", container, NAME, devices);
        }
        let hints = state.container_hints("u", &wants("a", wanted), &[0, 1]);
        assert_eq!(shown(hints[NAME].as_ref()), expected, "{wanted} of {devices}, {given:?}");
    }
}

#[test]
fn hints_of_whole_pods_are_upstreams() {
    let halves = "Dev1@0 Dev2@0 Dev3@1 Dev4@1";
    let limit = |one: u8, two: u8| {
        format!("resources: {{limits: {{r.io/one: {one}, r.io/two: {two}, r.io/none: 2}}}}")
    };
    let apps = format!("containers: [{{name: a, {}}}, {{name: b, {}}}]", limit(1, 1), limit(1, 1));
    let cases = [
        (format!("{{containers: [{{name: a, {}}}]}}", limit(2, 2)), None, "0+ 1+ 0,1-"),
        (
            format!(
                "{{initContainers: [{{name: i, {}}}, {{name: j, {}}}], {apps}}}",
                limit(1, 1),
                limit(1, 2)
            ),
            None,
            "0+ 1+ 0,1-",
        ),
        (format!("{{{apps}}}"), Some("Dev1 Dev3"), "0,1-"),
    ];
    for (spec, given, expected) in cases {
        let mut state = state(&[("r.io/one", halves), ("r.io/two", halves)]);
        for name in ["r.io/one", "r.io/two"] {
            if let Some(devices) = given {
                give(&mut state, "other", "c", name, devices);
            }
        }
        let hints = state.pod_hints("u", &pod(&spec), &[0, 1]);
        assert_eq!(hints.len(), 2, "the third is not ours");
        for (name, hints) in &hints {
            assert_eq!(shown(hints.as_ref()), expected, "{name} {spec}");
        }
    }
}

/// Chooses, with a plugin that prefers these.
fn chosen(state: &State, required: usize, nodes: &str, preferred: &str) -> Result<BTreeSet<String>, String> {
    let affinity = Hint { affinity: Some(mask(nodes)), preferred: true };
    let request = Request { uid: "u", container: "a", resource: NAME, required, affinity };
    match choose(state, request)? {
        Choice::Keep => Ok(BTreeSet::new()),
        Choice::Take(chosen) => Ok(chosen),
        Choice::Ask(ask) => ask.finish(&ids(preferred)),
    }
}

#[test]
fn devices_are_aligned_and_preferred_as_upstreams() {
    let six = "Dev1@0 Dev2@1 Dev3@0 Dev4@1 Dev5@0 Dev6@1";
    let many = |from: usize, to: usize, node: u8| {
        (from..to).map(|i| format!("Dev{i}@{node}")).collect::<Vec<_>>().join(" ")
    };
    let hundreds = format!("{} {}", many(0, 100, 0), many(100, 200, 1));
    let few = format!("{} {}", many(0, 3, 0), many(3, 100, 1));
    let second = many(0, 100, 1);
    // What is wanted, which devices there are, where from, what the plugin prefers and is heard in, and the count by node.
    let cases = [
        (1, "Dev1 Dev2", "0,1", "", "", ""),
        (1, "Dev1 Dev2@1", "1", "", "", "1"),
        (1, "Dev1@0 Dev2@1", "0", "", "", "0"),
        (1, "Dev1@0 Dev2@1", "1", "", "", "1"),
        (2, "Dev1@0 Dev2@1 Dev3@0 Dev4@1", "0", "", "", "00"),
        (2, "Dev1@0 Dev2@1 Dev3@0 Dev4@1", "1", "", "", "11"),
        (4, six, "0", "", "", "0001"),
        (4, six, "1", "", "", "0111"),
        (4, "Dev1@0 Dev2@1 Dev3@2 Dev4@3 Dev5@0 Dev6@1 Dev7@2 Dev8@3", "1,3", "", "", "1133"),
        (5, &hundreds, "0", "Dev0 Dev19 Dev83 Dev42 Dev77", "Dev0 Dev19 Dev83 Dev42 Dev77", "00000"),
        (5, &hundreds, "0", "Dev0 Dev19 Dev83 Dev150 Dev186", "Dev0 Dev19 Dev83", "00000"),
        (5, &second, "1", "Dev0 Dev19 Dev83 bogus0 bogus1", "Dev0 Dev19 Dev83", "11111"),
        (5, &few, "0", "Dev0 Dev1 Dev2 Dev42 Dev83", "Dev0 Dev1 Dev2 Dev42 Dev83", "00011"),
        (5, &few, "0", "Dev0 Dev1 Dev2 Dev42 bogus0", "Dev0 Dev1 Dev2 Dev42", "00011"),
    ];
    for (required, devices, nodes, preferred, heard, expected) in cases {
        let state = state(&[(NAME, devices)]);
        let chosen = chosen(&state, required, nodes, preferred).expect("enough");
        assert_eq!(chosen.len(), required, "{chosen:?}");
        assert!(chosen.is_superset(&ids(heard)), "{chosen:?} lacks some of {heard}");
        let known = &state.resources[NAME].devices;
        let mut aligned: Vec<String> =
            chosen.iter().filter_map(|id| known[id].numa.first()).map(ToString::to_string).collect();
        aligned.sort();
        assert_eq!(aligned.concat(), expected, "{required} of {nodes}");
    }
}

#[test]
fn what_cannot_be_given_is_said_in_upstreams_words() {
    let mut house = state(&[(NAME, "d1 d2:Unhealthy"), ("example.com/ill", "x:Unhealthy")]);
    let ask = |state: &State, resource: &str, required: usize| {
        let affinity = Hint::default();
        choose(state, Request { uid: "u", container: "a", resource, required, affinity })
    };
    let cases = [
        ("example.com/none", 1, "cannot allocate unregistered device example.com/none"),
        (
            "example.com/ill",
            1,
            "no healthy devices present; cannot allocate unhealthy devices example.com/ill",
        ),
        (
            NAME,
            2,
            "requested number of devices unavailable for example.com/dongle. Requested: 2, Available: 1",
        ),
    ];
    for (resource, required, message) in cases {
        assert_eq!(ask(&house, resource, required), Err(message.to_owned()));
    }
    assert_eq!(ask(&house, NAME, 0), Ok(Choice::Keep));
    give(&mut house, "u", "a", NAME, "d1");
    assert_eq!(ask(&house, NAME, 1), Ok(Choice::Keep), "it has what it asks for");
    assert_eq!(
        ask(&house, NAME, 2),
        Err(format!("pod \"u\" container \"a\" changed request for resource {NAME:?} from 1 to 2"))
    );
    house.update(NAME, vec![device("d1:Unhealthy"), device("d3")]);
    assert_eq!(
        ask(&house, NAME, 1),
        Err(format!(
            "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {NAME}"
        ))
    );
}

#[tokio::test(start_paused = true)]
async fn a_resource_is_forgotten_some_time_after_its_plugin() {
    let mut state = state(&[(NAME, "d1 d2:Unhealthy")]);
    let counted =
        |all, well| Capacity { resources: [(NAME.to_owned(), (all, well))].into(), removed: [].into() };
    assert_eq!(state.capacity(Instant::now()), (counted(2, 1), false));
    state.resources.get_mut(NAME).expect("there").stopped = Some(Instant::now());
    assert_eq!(state.capacity(Instant::now() + GRACE).0, counted(2, 1), "it may come back");
    let later = Instant::now() + GRACE + std::time::Duration::from_secs(1);
    let gone = Capacity { resources: [].into(), removed: [NAME.to_owned()].into() };
    assert_eq!(state.capacity(later), (gone.clone(), true));
    assert_eq!(state.capacity(later), (gone, false), "it is remembered at nothing");
}

#[test]
fn devices_of_init_containers_are_given_again_those_of_sidecars_are_not() {
    let mut state = state(&[(NAME, "d1 d2 d3")]);
    give(&mut state, "u", "i", NAME, "d1");
    state.settled("u", "i", true);
    give(&mut state, "u", "j", NAME, "d1 d2");
    state.settled("u", "j", true);
    assert_eq!(state.reusable("u", NAME), ids("d1 d2"));
    assert!(state.reusable("v", NAME).is_empty());
    give(&mut state, "u", "sidecar", NAME, "d2");
    state.settled("u", "sidecar", false);
    assert_eq!(state.reusable("u", NAME), ids("d1"));
    assert_eq!(chosen(&state, 2, "0", "").expect("enough"), ids("d1 d3"));
    state.settled("v", "a", false);
    assert!(state.reusable("u", NAME).is_empty(), "one pod at a time");
}

struct House {
    devices: Devices,
    directory: PathBuf,
    tasks: Tasks,
}

impl House {
    fn new() -> Self {
        Self::at(std::env::temp_dir().join(format!("devices-{}", uuid::Uuid::new_v4())))
    }

    /// A kubelet over what a former one left.
    fn at(directory: PathBuf) -> Self {
        let tasks = Tasks::new();
        let deps = Deps {
            directory: directory.clone(),
            numa: vec![0, 1],
            poke: Arc::default(),
            tasks: tasks.clone(),
        };
        let devices = Devices::new(deps);
        devices.serve(&tasks).expect("serves");
        Self { devices, directory, tasks }
    }

    fn counts(&self) -> Option<(usize, usize)> {
        self.devices.capacity().resources.get(NAME).copied()
    }

    async fn counted(&self, all: usize, well: usize) {
        until(&self.devices, |d| d.capacity().resources.get(NAME) == Some(&(all, well))).await;
    }
}

#[tokio::test]
async fn plugins_register_tell_and_leave() {
    let house = House::new();
    assert!(house.devices.is_new_node());
    let request = |version: &str, name: &str| RegisterRequest {
        version: version.into(),
        endpoint: "none.sock".into(),
        resource_name: name.into(),
        options: None,
    };
    let refusals = [
        (
            request("v1alpha", NAME),
            "requested API version \"v1alpha\" is not supported by kubelet. Supported version is [\"v1beta1\"]",
        ),
        (request("v1beta1", "dongle"), "the ResourceName \"dongle\" is invalid"),
        (request("v1beta1", NAME), "failed to get device plugin options: rpc error: code = Unavailable"),
    ];
    for (request, message) in refusals {
        let refused = register(&house.directory, request).await.expect_err(message);
        assert!(refused.starts_with(message), "{refused}");
    }
    let plugin = Plugin::start(&house.devices, NAME, "d1 d2:Unhealthy").await;
    house.counted(2, 1).await;
    plugin.tell("d1 d2 d3");
    house.counted(3, 3).await;
    let second = Plugin::start(&house.devices, NAME, "e1").await;
    house.counted(1, 1).await;
    plugin.tell("d1");
    drop(plugin);
    second.tell("e1 e2");
    house.counted(2, 2).await;
    drop(second);
    house.counted(2, 0).await;
    assert_eq!(house.devices.allocatable()[NAME].len(), 0);
    house.tasks.shut_down().await.expect("no failure");
    std::fs::remove_dir_all(&house.directory).expect("remove");
}

#[tokio::test]
async fn what_a_plugin_says_reaches_the_container() {
    let house = House::new();
    let options = DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let plugin = Plugin::with(&house.devices, NAME, "d1 d2 d3", options).await;
    house.counted(3, 3).await;
    *plugin.script.preferred.lock() = vec!["d3".into(), "d2".into()];
    let pod = pod(&format!("{{containers: [{{name: a, resources: {{limits: {{{NAME}: 2}}}}}}]}}"));
    let container = &types::spec(&pod).containers[0];
    assert!(house.devices.lacks(&pod, container));
    house.devices.allocate(&pod, container, Hint::default()).await.expect("given");
    assert!(!house.devices.lacks(&pod, container));
    let given = house.devices.container_options(&pod, container).await.expect("started");
    assert_eq!(plugin.calls(), ["prefer d1 d2 d3", "allocate d2 d3", "prestart d2 d3"]);
    assert_eq!(given.env, [("DONGLES".to_owned(), "d2,d3".to_owned())]);
    assert_eq!(given.devices[0].host_path, "/dev/host-d2");
    assert_eq!(given.cdi_devices, ["example.com/dongle=d2", "example.com/dongle=d3"]);
    house.devices.allocate(&pod, container, Hint::default()).await.expect("kept");
    assert!(plugin.calls().is_empty(), "it has them");
    plugin.script.failing.lock().insert("allocate", "out of order");
    let more = wants("b", 1);
    let failed = house.devices.allocate(&pod, &more, Hint::default()).await;
    assert_eq!(failed, Err("rpc error: code = Unknown desc = out of order".to_owned()));
    assert!(house.devices.of_container("u", "b").is_empty());
    house.devices.retain(|_| false);
    assert!(house.devices.holders().is_empty());
    house.tasks.shut_down().await.expect("no failure");
    std::fs::remove_dir_all(&house.directory).expect("remove");
}

#[tokio::test]
async fn what_was_given_outlives_the_kubelet() {
    let first = House::new();
    let plugin = Plugin::start(&first.devices, NAME, "d1@0 d2@1").await;
    first.counted(2, 2).await;
    let pod = pod(&format!("{{containers: [{{name: a, resources: {{limits: {{{NAME}: 1}}}}}}]}}"));
    let container = &types::spec(&pod).containers[0];
    let affinity = Hint { affinity: Some(mask("1")), preferred: true };
    first.devices.allocate(&pod, container, affinity).await.expect("given");
    first.tasks.shut_down().await.expect("no failure");
    drop(plugin);

    let again = House::at(first.directory.clone());
    assert!(!again.devices.is_new_node());
    assert_eq!(again.counts(), Some((0, 0)), "nothing may be given until the plugin is back");
    let given = again.devices.container_options(&pod, container).await.expect("known");
    assert_eq!(given.env, [("DONGLES".to_owned(), "d2".to_owned())]);
    let node: Node = serde_saphyr::from_str("status: {allocatable: {cpu: 1}}").expect("valid");
    let raised = again.devices.raised(&pod, &node).expect("it has devices");
    assert_eq!(raised.status.and_then(|s| s.allocatable).expect("set")[NAME].0, "1");
    let other = wants("b", 1);
    let refused = again.devices.allocate(&pod, &other, Hint::default()).await.expect_err("no plugin");
    assert!(refused.starts_with("no healthy devices present"), "{refused}");
    let plugin = Plugin::start(&again.devices, NAME, "d1@0 d2@1").await;
    again.counted(2, 2).await;
    again.devices.allocate(&pod, &other, Hint::default()).await.expect("given");
    assert_eq!(plugin.calls(), ["allocate d1"], "the other is in use");
    again.tasks.shut_down().await.expect("no failure");
    std::fs::remove_dir_all(&again.directory).expect("remove");
}

#[tokio::test]
async fn health_is_told_to_the_pods_that_have_the_device() {
    let house = House::new();
    let plugin = Plugin::start(&house.devices, NAME, "d1 d2").await;
    house.counted(2, 2).await;
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    house.devices.on_health(Box::new(move |uid| {
        assert_eq!(uid, "u");
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let pod = pod(&format!("{{containers: [{{name: a, resources: {{limits: {{{NAME}: 1}}}}}}]}}"));
    house.devices.allocate(&pod, &types::spec(&pod).containers[0], Hint::default()).await.expect("given");
    plugin.tell("d1:Unhealthy d2");
    house.counted(2, 1).await;
    plugin.tell("d1:Unhealthy d2:Unhealthy");
    house.counted(2, 0).await;
    let mut status: PodStatus = serde_saphyr::from_str(
        "containerStatuses: [{name: a, image: '', imageID: '', ready: true, restartCount: 0}, \
         {name: b, image: '', imageID: '', ready: true, restartCount: 0}]",
    )
    .expect("valid");
    house.devices.update_status(&pod, &mut status);
    let statuses = status.container_statuses.expect("set");
    let health = statuses[0].allocated_resources_status.clone().expect("told");
    assert_eq!(health[0].name, NAME);
    let resources = health[0].resources.clone().expect("listed");
    assert_eq!(
        (resources[0].resource_id.as_str(), resources[0].health.as_deref()),
        ("d1", Some("Unhealthy"))
    );
    assert_eq!(statuses[1].allocated_resources_status, None);
    // The pod is told before the node is, so it has been by now; of the device it does not have, it is not.
    plugin.tell("d1 d2");
    house.counted(2, 2).await;
    house.tasks.shut_down().await.expect("no failure");
    assert_eq!(told.load(Ordering::SeqCst), 2);
    std::fs::remove_dir_all(&house.directory).expect("remove");
}
