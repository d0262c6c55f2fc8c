//! Upstream's cases of the static policy over machines of two and four NUMA nodes, and what outlives a restart.

use super::*;
use crate::topology::NumaMask;
use crate::types;
use crate::volumes::testing::Scratch;

const GI: u64 = 1 << 30;

/// Nodes with so many GiB each; one GiB of the first is kept back.
fn machine(sizes: &[u64]) -> Vec<NumaMemory> {
    let node = |(id, size): (usize, &u64)| NumaMemory { id, memory: size * GI, ..NumaMemory::default() };
    sizes.iter().enumerate().map(node).collect()
}

fn config(scratch: &Scratch) -> Config {
    let limits = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
    Config {
        policy: "Static".into(),
        reserved: vec![Reservation { numa_node: 0, limits }],
        node_reserved: BTreeMap::from([("memory".to_owned(), Quantity("1Gi".into()))]),
        directory: scratch.path().to_owned(),
    }
}

fn whole(memory: &str) -> String {
    format!("resources: {{requests: {{cpu: 1, memory: {memory}}}, limits: {{cpu: 1, memory: {memory}}}}}")
}

fn pod(uid: &str, spec: &str) -> Pod {
    serde_saphyr::from_str(&format!("metadata: {{name: p, uid: {uid}}}\nspec: {{{spec}}}")).expect("valid")
}

fn one(uid: &str, memory: &str) -> Pod {
    pod(uid, &format!("containers: [{{name: a, {}}}]", whole(memory)))
}

fn from(nodes: &[usize]) -> Hint {
    Hint { affinity: Some(NumaMask::of(nodes.iter().copied())), preferred: true }
}

fn anywhere() -> Hint {
    Hint { affinity: None, preferred: true }
}

fn give(memory: &Memory, pod: &Pod, affinity: Hint) -> Result<Vec<usize>, String> {
    let container = &types::spec(pod).containers[0];
    memory.allocate(pod, container, affinity)?;
    Ok(memory.numa_of_container(types::uid(pod), &container.name).into_iter().collect())
}

fn shown(hints: &Hints) -> String {
    let Some(hints) = hints.get("memory") else { return "none".to_owned() };
    let text =
        |hint: &Hint| format!("{}{}", hint.affinity.expect("set"), if hint.preferred { "+" } else { "-" });
    hints.iter().flatten().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn memory_comes_from_one_node_while_it_can() {
    let scratch = Scratch::new();
    let memory = Memory::open(&config(&scratch), &machine(&[4, 4])).expect("opened");
    let hints = |memory: &Memory, asked: &str| {
        let pod = one("x", asked);
        let own = memory.hints(&pod, &types::spec(&pod).containers[0]);
        assert_eq!(own, memory.pod_hints(&pod), "one container is the pod");
        shown(&own)
    };
    assert_eq!(hints(&memory, "1Gi"), "{0}+ {1}+ {0, 1}-");
    assert_eq!(hints(&memory, "4Gi"), "{1}+ {0, 1}-", "some is kept back of the first");
    assert_eq!(hints(&memory, "6Gi"), "{0, 1}+");
    assert_eq!(hints(&memory, "8Gi"), "none");
    assert_eq!(give(&memory, &one("u1", "2Gi"), anywhere()), Ok(vec![0]));
    assert_eq!(give(&memory, &one("u2", "2Gi"), anywhere()), Ok(vec![1]), "the first has not enough left");
    assert_eq!(hints(&memory, "2Gi"), "{1}+", "nodes that give alone are in no group");
    assert_eq!(hints(&memory, "5Gi"), "none");
    assert_eq!(
        give(&memory, &one("u3", "5Gi"), anywhere()).expect_err("no group"),
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"
    );
    assert_eq!(
        give(&memory, &one("u3", "3Gi"), from(&[0])).expect_err("too much"),
        "[memorymanager] failed to find NUMA nodes to extend the current topology hint"
    );
    assert_eq!(
        give(&memory, &one("u3", "1Gi"), from(&[0, 1])).expect_err("no group"),
        "[memorymanager] preferred hint violates NUMA node allocation"
    );
    memory.retain(&|uid| uid != "u1");
    memory.retain(&|uid| uid != "u2");
    assert_eq!(hints(&memory, "5Gi"), "{0, 1}+", "all is back");
}

#[test]
fn groups_of_nodes_do_not_overlap() {
    let scratch = Scratch::new();
    let memory = Memory::open(&config(&scratch), &machine(&[4, 4, 4, 4])).expect("opened");
    assert_eq!(give(&memory, &one("u1", "6Gi"), from(&[0, 1])), Ok(vec![0, 1]));
    let hints = |asked: &str| shown(&memory.pod_hints(&one("x", asked)));
    assert_eq!(hints("1Gi"), "{2}+ {3}+ {0, 1}- {2, 3}-");
    assert_eq!(hints("5Gi"), "{2, 3}+");
    assert_eq!(give(&memory, &one("u2", "5Gi"), from(&[2])), Ok(vec![2, 3]), "the hint is widened");
    assert_eq!(
        give(&memory, &one("u3", "1Gi"), anywhere()).expect_err("only groups are left"),
        "[memorymanager] failed to find the default preferred hint"
    );
    assert_eq!(give(&memory, &one("u3", "1Gi"), from(&[0, 1])), Ok(vec![0, 1]));
    let burstable = pod("v", "containers: [{name: a, resources: {requests: {memory: 1Gi}}}]");
    assert_eq!(give(&memory, &burstable, anywhere()), Ok(vec![]));
    assert!(memory.pod_hints(&burstable).is_empty());
}

#[test]
fn init_containers_pass_memory_on() {
    let scratch = Scratch::new();
    let memory = Memory::open(&config(&scratch), &machine(&[8])).expect("opened");
    let spec = format!(
        "initContainers: [{{name: i, {}}}, {{name: s, restartPolicy: Always, {}}}], containers: [{{name: a, {}}}]",
        whole("4Gi"),
        whole("1Gi"),
        whole("2Gi")
    );
    let first = pod("u", &spec);
    let spec = types::spec(&first);
    for container in types::init_containers(spec).iter().chain(&spec.containers) {
        memory.allocate(&first, container, anywhere()).expect("given");
    }
    let sizes = |name: &str| memory.of_container("u", name).iter().map(|b| b.size / GI).collect::<Vec<_>>();
    assert_eq!(
        (sizes("i"), sizes("s"), sizes("a")),
        (vec![1], vec![1], vec![2]),
        "what others took over is theirs"
    );
    assert_eq!(give(&memory, &one("v", "3Gi"), anywhere()), Ok(vec![0]), "four of seven are taken");
    assert!(give(&memory, &one("w", "1Gi"), anywhere()).is_err());
    memory.retain(&|uid| uid == "v");
    assert_eq!(give(&memory, &one("w", "4Gi"), anywhere()), Ok(vec![0]));
}

#[test]
fn a_restart_forgets_nothing_and_a_changed_machine_is_refused() {
    let scratch = Scratch::new();
    let open = |sizes: &[u64]| Memory::open(&config(&scratch), &machine(sizes));
    let memory = open(&[4, 4]).expect("opened");
    give(&memory, &one("u", "6Gi"), anywhere()).expect("given");
    let again = open(&[4, 4]).expect("opened");
    let block = Block { numa_affinity: vec![0, 1], kind: "memory".into(), size: 6 * GI };
    assert_eq!(again.of_container("u", "a"), [block]);
    assert_eq!(shown(&again.pod_hints(&one("u", "6Gi"))), "{0, 1}+", "it has what it asks for");
    assert!(again.pod_hints(&one("u", "5Gi")).is_empty());
    for sizes in [&[4, 8][..], &[4], &[4, 4, 4]] {
        assert!(open(sizes).is_err(), "{sizes:?}");
    }
    let error = open(&[4, 8]).map(drop).expect_err("another machine");
    assert_eq!(error, "[memorymanager] the expected machine state is different from the real one");
}

#[test]
fn what_a_disk_refused_is_written_once_there_is_room() {
    let scratch = Scratch::new();
    let open = || Memory::open(&config(&scratch), &machine(&[4, 4])).expect("opened");
    let memory = open();
    // In the way of what is to become the file.
    let in_the_way = scratch.path().join(format!("{}.new", state::FILE));
    std::fs::create_dir(&in_the_way).expect("created");
    give(&memory, &one("u", "2Gi"), anywhere()).expect("given");
    std::fs::remove_dir(&in_the_way).expect("removed");
    // Nothing changes, but somebody looks.
    memory.retain(&|_| true);
    assert_eq!(open().of_container("u", "a"), memory.of_container("u", "a"));
    assert!(!memory.of_container("u", "a").is_empty());
}

#[test]
fn what_is_kept_back_has_to_add_up() {
    let scratch = Scratch::new();
    let open = |change: fn(&mut Config)| {
        let mut config = config(&scratch);
        change(&mut config);
        Memory::open(&config, &machine(&[4])).map(drop)
    };
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 5] = [
        (|c| c.policy = "BestEffort".into(), "policy \"BestEffort\" is not available for platform \"linux\""),
        (|c| c.policy = "static".into(), "unknown policy: \"static\""),
        (
            |c| c.reserved[0].numa_node = 1,
            "the reserved memory configuration references a NUMA node 1 that does not exist on this machine",
        ),
        (
            |c| drop(c.node_reserved.insert("memory".into(), Quantity("2Gi".into()))),
            "the total amount \"1Gi\" of type \"memory\" is not equal to the value \"2Gi\" determined by Node \
             Allocatable feature",
        ),
        (
            |c| (c.reserved, c.node_reserved) = (Vec::new(), BTreeMap::new()),
            "[memorymanager] you should specify the system reserved memory",
        ),
    ];
    for (change, message) in cases {
        assert_eq!(open(change), Err(message.to_owned()));
    }
}
