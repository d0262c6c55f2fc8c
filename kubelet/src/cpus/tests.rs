//! Upstream's cases of the static policy, and what outlives a restart.

use super::fixed::{Fixed, Reusable};
use super::*;
use crate::topology::NumaMask;
use crate::types;
use crate::volumes::testing::Scratch;

/// Machines by name: for each CPU its NUMA node, socket, core and cache.
const MACHINES: &str = include_str!("testdata/machines.txt");

pub(super) fn machine(name: &str) -> Layout {
    let line = MACHINES.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).expect("a machine");
    let cpu = |text: &str| {
        let at: Vec<usize> = text.split('.').map(|n| n.parse().expect("a number")).collect();
        Cpu { numa: at[0], socket: at[1], core: at[2], uncore: at[3] }
    };
    line.split(' ').map(cpu).enumerate().collect()
}

pub(super) fn set(text: &str) -> CpuSet {
    text.split(',')
        .filter(|p| !p.is_empty())
        .flat_map(|p| p.parse::<CpuSet>().expect(p).iter().collect::<Vec<_>>())
        .collect()
}

fn whole(cpu: &str) -> String {
    format!("resources: {{requests: {{cpu: {cpu}, memory: 1Gi}}, limits: {{cpu: {cpu}, memory: 1Gi}}}}")
}

fn pod(uid: &str, spec: &str) -> Pod {
    serde_saphyr::from_str(&format!("metadata: {{name: p, uid: {uid}}}\nspec: {{{spec}}}")).expect("valid")
}

fn one(cpu: &str) -> Pod {
    pod("u", &format!("containers: [{{name: a, {}}}]", whole(cpu)))
}

fn options(names: &str) -> Options {
    Options {
        full_pcpus_only: names.contains("full"),
        align_by_socket: names.contains("socket"),
        strict_reservation: names.contains("strict"),
        distribute: names.contains("distribute"),
        ..Options::default()
    }
}

fn state(given: &[(&str, &str, &str)], shared: &str) -> State {
    let mut state = State { shared: set(shared), ..State::default() };
    for (uid, container, cpus) in given {
        state.assignments.entry((*uid).to_owned()).or_default().insert((*container).to_owned(), set(cpus));
    }
    state
}

/// Options, how many are reserved and which, who has what, what is shared, and what comes of it.
type StartCase<'a> =
    (&'a str, usize, &'a str, &'a [(&'a str, &'a str, &'a str)], &'a str, Result<&'a str, &'a str>);

#[test]
fn a_state_has_to_fit_the_machine() {
    let all = "0-11";
    let cases: [StartCase<'_>; 11] = [
        ("", 0, "", &[("p", "0", "0")], "1-11", Ok("1-11")),
        ("", 1, "", &[], "", Ok(all)),
        ("", 2, "", &[], "0-1", Err("not all reserved cpus: \"0,6\" are present in defaultCpuSet: \"0-1\"")),
        (
            "strict",
            2,
            "",
            &[],
            "0-1",
            Err("some of strictly reserved cpus: \"0\" are present in defaultCpuSet: \"0-1\""),
        ),
        (
            "",
            0,
            "",
            &[("fakePod", "0", "0-2")],
            "2-11",
            Err("pod: fakePod, container: 0 cpuset: \"0-2\" overlaps with default cpuset \"2-11\""),
        ),
        (
            "",
            0,
            "",
            &[("p", "0", "0-2"), ("p", "1", "3-4")],
            "5-12",
            Err("current set of available CPUs \"0-11\" doesn't match with CPUs in state \"0-12\""),
        ),
        (
            "",
            0,
            "",
            &[("p", "0", "0-2"), ("p", "1", "3-4")],
            "5-10",
            Err("current set of available CPUs \"0-11\" doesn't match with CPUs in state \"0-10\""),
        ),
        ("", 2, "0,1", &[], "", Ok(all)),
        ("strict", 2, "0,1", &[], "", Ok("2-11")),
        ("strict", 2, "0,1", &[], "2-11", Ok("2-11")),
        ("", 0, "", &[("p", "0", "0")], "", Err("default cpuset cannot be empty")),
    ];
    for (names, count, reserved, given, shared, expected) in cases {
        let fixed = Fixed::new(machine("dual-ht"), count, set(reserved), options(names)).expect("reserved");
        let started = fixed.start(Some(state(given, shared))).map(|state| state.shared.to_string());
        assert_eq!(
            started.as_deref().map_err(String::as_str),
            expected,
            "{names} {count} {given:?} {shared}"
        );
    }
    let error =
        Fixed::new(machine("single-ht"), 3, set("0-1"), Options::default()).expect_err("other number");
    assert!(error.contains("(size of 0-1 did not equal 3)"), "{error}");
}

/// Options, machine, what is reserved, what others have, what is shared, how much is asked for, where from, and the result.
type Case<'a> =
    (&'a str, &'a str, (usize, &'a str), &'a str, &'a str, &'a str, &'a str, Result<&'a str, &'a str>);

fn check(cases: &[Case<'_>]) {
    for (names, layout, (count, reserved), taken, shared, asked, nodes, expected) in cases {
        let fixed = Fixed::new(machine(layout), *count, set(reserved), options(names)).expect("reserved");
        let mut state = state(&[("v", "b", taken)], shared);
        let pod = one(asked);
        let affinity =
            Hint { affinity: (!nodes.is_empty()).then(|| NumaMask::of(set(nodes).iter())), preferred: true };
        let container = &types::spec(&pod).containers[0];
        let given = fixed.allocate(&mut state, &mut Reusable::default(), (&pod, container), affinity);
        let result = given.map(|()| state.get("u", "a").cloned().unwrap_or_default().to_string());
        let result = result.map_err(|error| error.to_string());
        let wanted = expected.map(|text| set(text).to_string()).map_err(str::to_owned);
        assert_eq!(result, wanted, "{names} {layout} {asked} of {shared}");
        assert!(state.shared.is_disjoint(&state.get("u", "a").cloned().unwrap_or_default()));
    }
}

#[test]
fn cpus_are_given_as_upstreams_whatever_the_options() {
    let free = "1,2,9,11-13,23,25,35,38,48,51,53,54,61,113,173,233";
    for names in ["", "full"] {
        check(&[
            (names, "single-ht", (1, ""), "2-3,6-7", "0-1,4-5", "2", "", Ok("1,5")),
            (names, "dual-ht", (1, ""), "2", "0-1,3-11", "6", "", Ok("1,3,5,7,9,11")),
            (names, "dual-ht", (1, ""), "1,5", "0,2-4,6-11", "6", "", Ok("2-4,8-10")),
            (names, "dual", (1, ""), "", "0-1,3-7", "4", "", Ok("4-7")),
            (names, "dual", (1, ""), "4-5", "0-1,3,6-7", "4", "", Ok("1,3,6-7")),
            (names, "dual-ht", (1, ""), "2", "0-1,3-11", "8", "", Ok("1,3-5,7,9-11")),
            (names, "single-ht", (1, ""), "", "0-7", "977m", "", Ok("")),
            (
                names,
                "quad-four-way",
                (0, ""),
                "",
                free,
                "12",
                "",
                Ok("1,11,13,23,25,35,38,48,53,113,173,233"),
            ),
        ]);
    }
    let (mut shared, pod) = (
        state(&[], "0-7"),
        pod("u", "containers: [{name: a, resources: {requests: {cpu: 1}, limits: {cpu: 2}}}]"),
    );
    let fixed = Fixed::new(machine("single-ht"), 1, CpuSet::default(), Options::default()).expect("reserved");
    let asked = (&pod, &types::spec(&pod).containers[0]);
    fixed.allocate(&mut shared, &mut Reusable::default(), asked, Hint::default()).expect("nothing to give");
    assert!(shared.assignments.is_empty(), "the pod is not guaranteed");
}

#[test]
fn cpus_are_given_as_upstreams() {
    check(&[
        ("", "single-ht", (1, ""), "", "0-7", "1", "", Ok("4")),
        ("", "quad-four-way", (0, ""), "", "10-11,52-53,67", "5", "", Ok("10-11,52-53,67")),
        (
            "",
            "single-ht",
            (1, ""),
            "",
            "0-7",
            "8",
            "",
            Err("not enough cpus available to satisfy request: requested=8, available=7"),
        ),
        (
            "",
            "dual-ht",
            (1, ""),
            "1-3",
            "0,4-11",
            "10",
            "",
            Err("not enough cpus available to satisfy request: requested=10, available=8"),
        ),
        ("", "single-ht", (2, "0-1"), "", "0-7", "1", "", Ok("4")),
        ("", "single-ht", (2, "0-1"), "2-3,6-7", "0-1,4-5", "2", "", Ok("4-5")),
        ("socket", "numas-ht", (1, ""), "", "2,11,21,22", "2", "0,2", Ok("2,11")),
        ("", "numas-ht", (1, ""), "", "2,11,21,22", "2", "0,2", Ok("2,21")),
    ]);
}

#[test]
fn whole_cores_or_none() {
    check(&[
        (
            "full",
            "single-ht",
            (1, ""),
            "",
            "0-7",
            "1",
            "",
            Err("SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2"),
        ),
        (
            "full",
            "quad-four-way",
            (8, ""),
            "",
            "0-287",
            "15",
            "",
            Err("SMT Alignment Error: requested 15 cpus not multiple cpus per core = 4"),
        ),
        (
            "full",
            "dual-ht",
            (2, "1,6"),
            "",
            "0,2-5,7-11",
            "10",
            "",
            Err(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 8, requested CPUs = 10, \
                 CPUs per core = 2",
            ),
        ),
        ("full", "dual-ht", (2, ""), "", "1-5,7-11", "10", "", Ok("1-5,7-11")),
        ("full", "dual-ht", (2, "0,6"), "", "1-5,7-11", "10", "", Ok("1-5,7-11")),
    ]);
}

fn shown(hints: &Hints) -> String {
    let Some(hints) = hints.get("cpu") else { return "any".to_owned() };
    let text = |hint: &Hint| {
        let mask = hint.affinity.expect("set");
        format!("{mask}{}", if hint.preferred { "+" } else { "-" })
    };
    hints.iter().flatten().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn hints_are_upstreams() {
    let fixed = Fixed::new(machine("dual-ht"), 0, CpuSet::default(), Options::default()).expect("reserved");
    let hints = |asked: &str, given: &[(&str, &str, &str)], shared: &str| {
        let pod = one(asked);
        let state = state(given, shared);
        let container = &types::spec(&pod).containers[0];
        let whole = fixed.pod_hints(&state, &Reusable::default(), &pod);
        let own = fixed.container_hints(&state, &Reusable::default(), &pod, container);
        assert_eq!(shown(&own), shown(&whole), "one container is the pod");
        shown(&own)
    };
    assert_eq!(hints("2", &[], "0-11"), "{0}+ {1}+ {0, 1}-");
    assert_eq!(hints("5", &[], "0-11"), "{0}+ {1}+ {0, 1}-");
    assert_eq!(hints("7", &[], "0-11"), "{0, 1}+");
    assert_eq!(hints("11", &[], "0-11"), "{0, 1}+");
    assert_eq!(hints("1", &[], "1,3"), "{1}+ {0, 1}-");
    assert_eq!(hints("2", &[], "0,1"), "{0, 1}-", "each alone would do, were it free");
    assert_eq!(hints("12", &[], "0-10"), "");
    assert_eq!(hints("1500m", &[], "0-11"), "any");
    assert_eq!(hints("2", &[("u", "a", "0,6")], "1-5,7-11"), "{0}+ {0, 1}-");
    assert_eq!(hints("4", &[("u", "a", "0,6")], "1-5,7-11"), "");
}

#[test]
fn init_containers_pass_cpus_on_and_sidecars_keep_them() {
    let scratch = Scratch::new();
    let config = Config {
        policy: "static".into(),
        reserved_milli: 500,
        directory: scratch.path().to_owned(),
        ..Config::default()
    };
    let cpus = Cpus::open(config.clone(), machine("single-ht")).expect("opened");
    let spec = format!(
        "initContainers: [{{name: i, {four}}}, {{name: s, restartPolicy: Always, {one}}}], \
         containers: [{{name: a, {two}}}, {{name: b, {half}}}]",
        four = whole("4"),
        one = whole("1"),
        two = whole("2"),
        half = whole("500m")
    );
    let pod = pod("u", &spec);
    let spec = types::spec(&pod);
    for container in types::init_containers(spec).iter().chain(&spec.containers) {
        cpus.allocate(&pod, container, Hint::default()).expect("given");
    }
    let init = cpus.exclusive("u", "i").expect("given");
    let (sidecar, app) = (cpus.exclusive("u", "s").expect("given"), cpus.exclusive("u", "a").expect("given"));
    assert_eq!((init.len(), app.difference(&init).len()), (4, 0), "the app has what the init container had");
    assert_eq!(sidecar, set("4"), "what shares a core with others is taken first");
    assert!(sidecar.is_disjoint(&app));
    assert_eq!(cpus.exclusive("u", "b"), None);
    assert_eq!(cpus.of_container("u", "b"), set("0-7").difference(&init).difference(&sidecar));

    let again = Cpus::open(config, machine("single-ht")).expect("opened");
    assert_eq!(again.exclusive("u", "a"), Some(app));
    let running =
        |container: &str| Running { uid: "u".into(), container: container.into(), id: container.into() };
    let all = [running("a"), running("b")];
    let updates = again.updates(&all);
    assert_eq!(updates.len(), 2, "nothing is known of what the runtime was told");
    for (container, set) in updates {
        again.told(&container.id, set);
    }
    assert!(again.updates(&all).is_empty());
    again.retain(&|_| false);
    assert_eq!(again.of_container("u", "b"), set("0-7"));
    assert_eq!(again.updates(&all), [(running("a"), set("0-7")), (running("b"), set("0-7"))]);
}

#[test]
fn what_a_disk_refused_is_written_once_there_is_room() {
    let scratch = Scratch::new();
    let directory = scratch.path().to_owned();
    let config = Config { policy: "static".into(), reserved_milli: 500, directory, ..Config::default() };
    let open = || Cpus::open(config.clone(), machine("single-ht")).expect("opened");
    let cpus = open();
    // In the way of what is to become the file.
    let in_the_way = scratch.path().join(format!("{}.new", state::FILE));
    std::fs::create_dir(&in_the_way).expect("created");
    let pod = one("2");
    cpus.allocate(&pod, &types::spec(&pod).containers[0], Hint::default()).expect("given");
    let given = cpus.exclusive("u", "a").expect("given");
    std::fs::remove_dir(&in_the_way).expect("removed");
    // Nothing changes, but somebody looks.
    cpus.retain(&|_| true);
    assert_eq!(open().exclusive("u", "a"), Some(given));
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let scratch = Scratch::new();
    let open = |policy: &str, options: &[(&str, &str)], reserved_milli| {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let directory = scratch.path().to_owned();
        let config =
            Config { policy: policy.into(), options, reserved_milli, directory, ..Config::default() };
        Cpus::open(config, machine("single-ht")).map(drop)
    };
    let cases = [
        (open("other", &[], 1), "unknown policy: \"other\""),
        (
            open("none", &[("full-pcpus-only", "true")], 1),
            "new none policy error: None policy: received unsupported options=map[full-pcpus-only:true]",
        ),
        (
            open("static", &[], 0),
            "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero",
        ),
    ];
    for (opened, message) in cases {
        assert_eq!(opened, Err(message.to_owned()));
    }
    open("none", &[], 0).expect("opened");
    let error = open("static", &[], 1000).expect_err("another policy wrote the file");
    assert!(
        error.contains(
            "configured policy \"static\" differs from state checkpoint policy \"none\", please drain"
        ),
        "{error}"
    );
}
