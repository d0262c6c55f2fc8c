//! Pods that get CPUs and memory for themselves, from their admission to their end, and who is told of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proto::pod_resources as api;
use proto::pod_resources::pod_resources_lister_client::PodResourcesListerClient;

use super::*;
use crate::cpus::{self, Cpu, Layout};
use crate::devices::testing::{Plugin, until};
use crate::memory::{self, NumaMemory, Reservation};
use crate::pod_resources::PodResources;
use crate::runtime::unix_channel;
use crate::topology::{NumaInfo, Options, Policy, Scope};
use crate::volumes::testing::Scratch;

const GI: u64 = 1 << 30;
const NAME: &str = "example.com/dongle";

/// Two NUMA nodes with two cores of two CPUs each: 0 to 3 and 4 to 7, cores 0,1 and so on.
fn layout() -> Layout {
    let cpu = |number: usize| Cpu {
        numa: number / 4,
        socket: number / 4,
        core: number / 2 * 2,
        uncore: number / 4,
    };
    (0..8).map(|number| (number, cpu(number))).collect()
}

fn given(scratch: &Scratch, policy: Policy, options: &[(&str, &str)]) -> Given {
    let config = cpus::Config {
        policy: "static".into(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        reserved_milli: 2000,
        directory: scratch.path().to_owned(),
        ..cpus::Config::default()
    };
    let cpus = Cpus::open(config, layout()).expect("opened");
    let machine: Vec<_> =
        (0..2).map(|id| NumaMemory { id, memory: 4 * GI, ..NumaMemory::default() }).collect();
    let limits = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
    let config = memory::Config {
        policy: "Static".into(),
        reserved: vec![Reservation { numa_node: 0, limits }],
        node_reserved: BTreeMap::from([("memory".to_owned(), Quantity("1Gi".into()))]),
        directory: scratch.path().to_owned(),
    };
    let memory = Memory::open(&config, &machine).expect("opened");
    let numa = NumaInfo { nodes: vec![0, 1], distances: BTreeMap::new() };
    let alignment = Alignment { policy, scope: Scope::Container, options: Options::default(), numa };
    Given { cpus, memory, alignment, api: None }
}

fn house_of(fake: &FakeRuntime, scratch: &Scratch, policy: Policy, options: &[(&str, &str)]) -> House {
    let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
    let groups = Cgroups::new(settings).expect("the hierarchy is mounted");
    let records = (Record::in_memory(), Record::in_memory());
    let house = house_given(fake, groups, records, None, given(scratch, policy, options));
    let node = "metadata: {name: n1}\nstatus: {allocatable: {cpu: '6', memory: 7Gi, pods: '9', example.com/dongle: '9'}}";
    let node: Node = serde_saphyr::from_str(node).expect("valid");
    *house.agent.parts().environment.node.write() = Some(Arc::new(node));
    drop(house.agent.start_workers(Intervals::default(), &house.tasks));
    house.agent.inner.admission.lock().complete = true;
    house
}

fn asks(uid: &str, limits: &str) -> Arc<Pod> {
    let resources = format!("{{requests: {{{limits}}}, limits: {{{limits}}}}}");
    let text = format!(
        "metadata: {{name: p-{uid}, namespace: ns, uid: {uid}, annotations: {{kubernetes.io/config.source: api}}}}\n\
         spec: {{dnsPolicy: Default, containers: [{{name: {uid}, image: 'here:1', resources: {resources}}}]}}"
    );
    Arc::new(serde_saphyr::from_str(&text).expect("valid pod"))
}

async fn admit(house: &House, pod: &Arc<Pod>) -> bool {
    house.agent.parts().pods.upsert(pod.clone());
    house.agent.admit(pod).await
}

fn resources(fake: &FakeRuntime, container: &str) -> proto::cri::LinuxContainerResources {
    let state = fake.state.lock();
    let mut configs = state.configs.values();
    let config = configs.find(|c| c.metadata.as_ref().is_some_and(|m| m.name == container)).expect("created");
    config.linux.clone().and_then(|linux| linux.resources).expect("set")
}

#[tokio::test]
async fn a_pod_has_cpus_and_memory_for_itself_and_others_share_the_rest() {
    let (fake, scratch) = (FakeRuntime::start(&["here:1"]).await, Scratch::new());
    let house = house_of(&fake, &scratch, Policy::SingleNumaNode, &[]);
    let shared = asks("shared", "memory: 1Mi");
    assert!(admit(&house, &shared).await);
    house.sync(&shared).await.expect("synced");
    assert_eq!(resources(&fake, "shared").cpuset_cpus, "0-7");

    let alone = asks("alone", "cpu: 2, memory: 1Gi");
    assert!(admit(&house, &alone).await);
    house.sync(&alone).await.expect("synced");
    let limits = resources(&fake, "alone");
    assert_eq!(
        (limits.cpuset_cpus.as_str(), limits.cpuset_mems.as_str(), limits.cpu_quota),
        ("2-3", "0", -1)
    );

    fake.calls();
    house.agent.tell_cpu_sets().await.expect("told");
    let mut calls = fake.calls();
    calls.sort();
    assert_eq!(
        calls,
        ["UpdateContainerResources alone on 2-3", "UpdateContainerResources shared on 0-1,4-7"]
    );
    house.agent.tell_cpu_sets().await.expect("told");
    assert!(fake.calls().is_empty(), "nothing changed");

    let wide = asks("wide", "cpu: 5, memory: 1Gi");
    assert!(!admit(&house, &wide).await);
    assert_eq!(house.phase("wide"), "Failed TopologyAffinityError");
    let status = house.agent.parts().status.pod_status("wide").expect("reported");
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was rejected: Resources cannot be allocated with Topology locality")
    );

    house.agent.pod_removed(&alone);
    house.agent.tell_cpu_sets().await.expect("told");
    assert_eq!(fake.calls(), ["UpdateContainerResources shared on 0-7"], "what is gone is not told");
    house.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn half_a_core_is_refused_where_cores_are_whole() {
    let (fake, scratch) = (FakeRuntime::start(&["here:1"]).await, Scratch::new());
    let house = house_of(&fake, &scratch, Policy::None, &[("full-pcpus-only", "true")]);
    assert!(!admit(&house, &asks("odd", "cpu: 1, memory: 1Gi")).await);
    assert_eq!(house.phase("odd"), "Failed SMTAlignmentError");
    let status = house.agent.parts().status.pod_status("odd").expect("reported");
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was rejected: SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2")
    );
    assert!(!admit(&house, &asks("large", "cpu: 2, memory: 8Gi")).await);
    assert_eq!(house.phase("large"), "Failed UnexpectedAdmissionError");
    assert!(!house.agent.parts().placement.cpus().has_exclusive("large"), "what it had is free");
    assert!(admit(&house, &asks("even", "cpu: 6, memory: 1Gi")).await);
    house.tasks.shut_down().await.expect("no failure");
}

#[tokio::test]
async fn devices_cpus_and_memory_come_from_one_node() {
    let (fake, scratch) = (FakeRuntime::start(&["here:1"]).await, Scratch::new());
    let house = house_of(&fake, &scratch, Policy::Restricted, &[]);
    house.devices.serve(&house.tasks).expect("serves");
    let _plugin = Plugin::start(&house.devices, NAME, "d0@1 d1@1 d2").await;
    until(&house.devices, |d| d.capacity().resources.get(NAME) == Some(&(3, 3))).await;
    let limits = format!("cpu: 2, memory: 1Gi, {NAME}: 1");
    assert!(admit(&house, &asks("first", &limits)).await);
    let told = PodResources {
        pods: house.agent.parts().pods.clone(),
        placement: house.agent.parts().placement.clone(),
        claims: house.agent.parts().claims.clone(),
        is_active: house.agent.holds(),
    };
    let directory = scratch.path().join("pod-resources");
    told.serve(&directory, &house.tasks).expect("serves");
    let mut client = PodResourcesListerClient::new(unix_channel(&directory.join("kubelet.sock")));

    let list = client.list(api::ListPodResourcesRequest {}).await.expect("answered").into_inner();
    let pod = &list.pod_resources[0];
    assert_eq!((pod.name.as_str(), pod.namespace.as_str(), list.pod_resources.len()), ("p-first", "ns", 1));
    let container = &pod.containers[0];
    let node = |topology: Option<&api::TopologyInfo>| {
        topology.map(|t| t.nodes.iter().map(|n| n.id).collect::<Vec<_>>())
    };
    assert_eq!(container.devices[0].device_ids, ["d0"]);
    assert_eq!(node(container.devices[0].topology.as_ref()), Some(vec![1]));
    assert_eq!(container.cpu_ids, [4, 5]);
    assert_eq!((container.memory[0].size, node(container.memory[0].topology.as_ref())), (GI, Some(vec![1])));

    let all = client.get_allocatable_resources(api::AllocatableResourcesRequest {}).await.expect("answered");
    let all = all.into_inner();
    assert_eq!(all.cpu_ids, [2, 3, 4, 5, 6, 7], "the first core is kept back");
    assert_eq!(all.devices.len(), 3);
    assert_eq!(all.memory.iter().map(|m| m.size / GI).collect::<Vec<_>>(), [3, 4]);

    let get = |pod_name: &str| api::GetPodResourcesRequest {
        pod_name: pod_name.into(),
        pod_namespace: "ns".into(),
    };
    let one = client.get(get("p-first")).await.expect("answered").into_inner();
    assert_eq!(one.pod_resources.as_ref(), Some(pod));
    let none = client.get(get("p-none")).await.expect_err("not there");
    assert_eq!(none.message(), "pod p-none in namespace ns not found");

    let resized = asks("first", &limits.replace("cpu: 2", "cpu: 3"));
    house.agent.pod_changed(&resized).await;
    let condition = house.agent.parts().resizes.of("first");
    assert_eq!(
        condition[0].message.as_deref(),
        Some("Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"")
    );
    house.tasks.shut_down().await.expect("no failure");
}
