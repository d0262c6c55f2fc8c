//! Upstream's cases for merging, each written as `HINTS; HINTS | HINTS`: resources of a provider are kept apart by
//! semicolons, providers by bars. A hint is its NUMA nodes (`*` for any) and whether it is preferred.

use super::*;

fn hint(text: &str) -> Hint {
    let (nodes, preferred) = text.split_at(text.len() - 1);
    let affinity =
        (nodes != "*").then(|| NumaMask::of(nodes.split(',').map(|n| n.parse().expect("a number"))));
    Hint { affinity, preferred: preferred == "+" }
}

fn providers(text: &str) -> Vec<Hints> {
    let provider = |text: &str| -> Hints {
        let resources = text.split(';').map(str::trim).filter(|r| !r.is_empty()).enumerate();
        let hints = resources.map(|(number, hints)| {
            let hints = match hints {
                "any" => None,
                "never" => Some(Vec::new()),
                list => Some(list.split_whitespace().map(hint).collect()),
            };
            (format!("resource{number}"), hints)
        });
        hints.collect()
    };
    if text == "nobody" { Vec::new() } else { text.split('|').map(provider).collect() }
}

const COMMON: &[(&str, &str)] = &[
    ("0+ | 0+", "0+"),
    ("1+ | 1+", "1+"),
    (" | 0+", "0+"),
    (" | 1+", "1+"),
    ("0+ 1+ | 0+", "0+"),
    ("0+ 1+ | 1+", "1+"),
    ("0+ 1+ | 0+ 0,1-", "0+"),
    ("1+ 0,1- | 0+ 1+ 0,1-", "1+"),
    ("1+ 0,1-; 0+ 1+ 0,1-", "1+"),
];

const BEST_EFFORT: &[(&str, &str)] = &[
    ("0,1+ 0,2+ | 0,1+ 0,2+", "0,1+"),
    ("nobody", "0,1,2,3+"),
    ("", "0,1,2,3+"),
    ("any", "0,1,2,3+"),
    ("never", "0,1,2,3-"),
    ("*+", "0,1,2,3+"),
    ("*-", "0,1,2,3-"),
    ("0+ | 1+", "0,1,2,3-"),
    ("0+ | 0-", "0-"),
    ("1+ | 1-", "1-"),
    ("0+ | 0,1+", "0-"),
    ("0+ 1+ | 0,1-", "0-"),
    ("1+ | 0,1+", "1-"),
    ("0,1,2,3- 0,1- | 0,1-", "0,1-"),
    ("0,1,2,3- 0,1- | 0,3-", "0,3-"),
    ("0,1,2,3- 0,1- | 1,2-", "1,2-"),
    ("0,1,2,3- 0,1- | 2,3-", "2,3-"),
    ("0,1,2,3- 0,1- | 1,2- 2,3-", "1,2-"),
    ("0,1,2,3- 0,1- | 1,2,3- 1,2- 1,3- 2,3-", "1,2-"),
];

const CLOSEST: &[(&str, &str)] = &[
    ("0,4+ 0,2+ | 0,4+ 0,2+", "0,2+"),
    ("4+ 0,2+ | 4+ 0,2+", "4+"),
    ("0,1,2,3- 0,1- | 1,2- 2,3-", "2,3-"),
    ("0,1,2,3- 0,1- | 1,2,3- 1,2- 1,3- 2,3-", "2,3-"),
];

const SINGLE: &[(&str, &str)] = &[
    ("nobody", "*+"),
    ("", "*+"),
    ("any", "*+"),
    ("never", "*-"),
    ("*+", "*+"),
    ("*-", "*-"),
    ("0+ | 1+", "*-"),
    ("0+ | 0-", "*-"),
    ("1+ | 1-", "*-"),
    ("0+ 1+ | 0,1-", "*-"),
    ("0,1+; 0+ 1+ 0,1-", "*-"),
    ("0+ 1+ 0,1- | ", "0+"),
];

fn check(policy: Policy, info: &NumaInfo, options: Options, cases: &[(&str, &str)]) {
    for (offered, expected) in cases {
        let (found, good) = merge(policy, info, options, &providers(offered));
        assert_eq!(found, hint(expected), "{policy:?}: {offered}");
        assert_eq!(good, policy == Policy::BestEffort || found.preferred, "{policy:?}: {offered}");
    }
}

fn nodes(count: usize) -> NumaInfo {
    NumaInfo { nodes: (0..count).collect(), distances: BTreeMap::new() }
}

#[test]
fn hints_merge_as_upstreams() {
    for policy in [Policy::BestEffort, Policy::Restricted] {
        check(policy, &nodes(4), Options::default(), COMMON);
        check(policy, &nodes(4), Options::default(), BEST_EFFORT);
    }
    check(Policy::SingleNumaNode, &nodes(4), Options::default(), COMMON);
    check(Policy::SingleNumaNode, &nodes(4), Options::default(), SINGLE);
}

#[test]
fn close_nodes_are_preferred_on_request() {
    let rows: [[u64; 8]; 8] = [
        [10, 11, 12, 12, 30, 30, 30, 30],
        [11, 10, 12, 12, 30, 30, 30, 30],
        [12, 12, 10, 11, 30, 30, 30, 30],
        [12, 12, 11, 10, 30, 30, 30, 30],
        [30, 30, 30, 30, 10, 11, 12, 12],
        [30, 30, 30, 30, 11, 10, 12, 12],
        [30, 30, 30, 30, 12, 12, 10, 13],
        [30, 30, 30, 30, 12, 12, 13, 10],
    ];
    let distances = rows.iter().map(|row| row.to_vec()).enumerate().collect();
    let info = NumaInfo { nodes: (0..8).collect(), distances };
    let options = Options { prefer_closest: true, ..Options::default() };
    for policy in [Policy::BestEffort, Policy::Restricted] {
        check(policy, &info, options, COMMON);
        check(policy, &info, options, CLOSEST);
    }
}

#[test]
fn without_a_policy_nothing_is_asked() {
    assert_eq!(
        merge(Policy::None, &nodes(2), Options::default(), &providers("never")),
        (Hint::default(), true)
    );
}
