//! What upstream's plugins say of spreading and affinity, case by case.
//!
//! A case is a paragraph. `nodes` are those in question, `others` those that were refused before; each has a name and
//! labels (`key=value`, or `key` with an empty value). `pods` stand first on which node they are; `ns:` is their
//! namespace, `ends:` says that they are going. `new` is the pod to place. Braces hold the rest, in short: `near` and
//! `away` are required terms, `likes` and `shuns` preferred ones, `spread` constraints, `taints` a node's; selectors are
//! texts such as `a in x y, !b`. `has` is a service. `expect` tells of each node whether it is `ok`, or the refusal, or
//! its score; `all ok` and `nothing` say that the plugin sees that it has nothing to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Map, Value, json};

use super::inter_pod_affinity::InterPodAffinity;
use super::pod_topology_spread::PodTopologySpread;
use crate::config::args::{InterPodAffinityArgs, PodTopologySpreadArgs};
use crate::framework::{Code, Plugin, Rejection};
use crate::listers::Listers;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::testing::merge;

/// A paragraph, read.
struct Case {
    nodes: Vec<Arc<NodeInfo>>,
    snapshot: Snapshot,
    new: Arc<PodInfo>,
    services: Vec<Value>,
    affinity: InterPodAffinityArgs,
    expect: String,
}

/// The words of an item, and what stands in braces after them.
fn split(item: &str) -> (Vec<&str>, Map<String, Value>) {
    let (words, rest) = item.split_at(item.find('{').unwrap_or(item.len()));
    let rest = if rest.is_empty() { Map::new() } else { serde_json::from_str(rest).expect(item) };
    (words.split_whitespace().collect(), rest)
}

fn labels(words: &[&str]) -> Value {
    let pairs = words.iter().filter(|word| !word.contains(':'));
    pairs.map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

fn selector(short: &Value) -> Value {
    let Some(text) = short.as_str() else { return short.clone() };
    let requirement = |part: &str| {
        let words: Vec<&str> = part.split(' ').collect();
        match (words[0].strip_prefix('!'), words.get(1)) {
            (Some(key), _) => json!({"key": key, "operator": "DoesNotExist"}),
            (None, Some(&"in")) => json!({"key": words[0], "operator": "In", "values": words[2..]}),
            (None, Some(_)) => json!({"key": words[0], "operator": "NotIn", "values": words[2..]}),
            (None, None) => json!({"key": words[0], "operator": "Exists"}),
        }
    };
    let parts = text.split(", ").filter(|part| !part.is_empty());
    let (equal, other): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.contains('='));
    json!({"matchLabels": labels(&equal), "matchExpressions": other.into_iter().map(requirement).collect::<Vec<_>>()})
}

fn term(short: &Value) -> Value {
    let mut term = json!({"topologyKey": short["key"]});
    for (from, to) in [("select", "labelSelector"), ("nsSelect", "namespaceSelector")] {
        if let Some(value) = short.get(from) {
            term[to] = selector(value);
        }
    }
    if let Some(namespaces) = short.get("ns") {
        term["namespaces"] = namespaces.clone();
    }
    term
}

fn constraint(short: &Value) -> Value {
    let action = if short["soft"] == true { "ScheduleAnyway" } else { "DoNotSchedule" };
    let mut constraint =
        json!({"topologyKey": short["key"], "maxSkew": short["skew"], "whenUnsatisfiable": action});
    if let Some(value) = short.get("select") {
        constraint["labelSelector"] = selector(value);
    }
    for (from, to) in [
        ("min", "minDomains"),
        ("affinity", "nodeAffinityPolicy"),
        ("taints", "nodeTaintsPolicy"),
        ("labels", "matchLabelKeys"),
    ] {
        if let Some(value) = short.get(from) {
            constraint[to] = value.clone();
        }
    }
    constraint
}

fn pod(name: &str, words: &[&str], short: &Map<String, Value>) -> Value {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let tagged = |tag: &str| words.iter().find_map(|word| word.strip_prefix(tag));
    let mut object = json!({"metadata": {"name": name, "uid": name, "labels": labels(words),
        "namespace": tagged("ns:").unwrap_or_default()}, "spec": {"containers": []}});
    if tagged("ends:").is_some() {
        object["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    }
    let list = |key: &str, make: fn(&Value) -> Value| {
        short.get(key).and_then(Value::as_array).map(|items| items.iter().map(make).collect::<Value>())
    };
    let weighted = |short: &Value| json!({"weight": short["weight"], "podAffinityTerm": term(short)});
    for (key, kind, strength, make) in [
        ("near", "podAffinity", REQUIRED, term as fn(&Value) -> Value),
        ("away", "podAntiAffinity", REQUIRED, term),
        ("likes", "podAffinity", PREFERRED, weighted),
        ("shuns", "podAntiAffinity", PREFERRED, weighted),
    ] {
        if let Some(terms) = list(key, make) {
            merge(&mut object, json!({"spec": {"affinity": {kind: {strength: terms}}}}));
        }
    }
    if let Some(constraints) = list("spread", constraint) {
        object["spec"]["topologySpreadConstraints"] = constraints;
    }
    merge(&mut object, json!({"spec": short.get("spec").cloned().unwrap_or_else(|| json!({}))}));
    object
}

fn info(object: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).expect("a pod"))))
}

fn node(item: &str) -> NodeInfo {
    let (words, rest) = split(item);
    let object = json!({"metadata": {"name": words[0], "labels": labels(&words[1..])}, "spec": rest});
    NodeInfo::new(Arc::new(serde_json::from_value(object).expect("a node")))
}

impl Case {
    fn read(text: &str) -> Self {
        let lines = |name: &str| {
            let name = format!("{name} ");
            let items = text.lines().filter_map(move |line| line.strip_prefix(&*name).map(str::to_owned));
            items.collect::<Vec<_>>()
        };
        let items = |name: &str| -> Vec<String> {
            lines(name).iter().flat_map(|line| line.split(" | ")).map(str::to_owned).collect()
        };
        let mut nodes: Vec<_> = items("nodes").iter().map(|item| node(item)).collect();
        let candidates = nodes.len();
        nodes.extend(items("others").iter().map(|item| node(item)));
        for (at, item) in items("pods").iter().enumerate() {
            let (words, short) = split(item);
            let mut object = pod(&format!("p{at}"), &words[1..], &short);
            object["spec"]["nodeName"] = words[0].into();
            if let Some(node) = nodes.iter_mut().find(|node| node.name() == words[0]) {
                node.add(info(object));
            }
        }
        let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
        let team = |name: &str, team: &str| {
            (name.to_owned(), BTreeMap::from([("team".to_owned(), team.to_owned())]))
        };
        let namespaces = BTreeMap::from([
            (String::new(), BTreeMap::new()),
            ("NS1".to_owned(), BTreeMap::new()),
            team("subteam1.team1", "team1"),
            team("subteam2.team1", "team1"),
            team("subteam1.team2", "team2"),
            team("subteam2.team2", "team2"),
        ]);
        let (words, short) =
            text.lines().find_map(|line| line.strip_prefix("new")).map(split).expect("a case has a new pod");
        let weight = lines("weight").first().map_or(1, |line| line.parse().expect("a weight"));
        Self {
            snapshot: Snapshot::new(nodes.clone(), Arc::default(), Arc::new(namespaces)),
            nodes: nodes[..candidates].to_vec(),
            new: info(pod("new", &words, &short)),
            services: lines("has").iter().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
            affinity: InterPodAffinityArgs {
                hard_pod_affinity_weight: weight,
                ignore_preferred_terms_of_existing_pods: text.contains("\nignore theirs"),
            },
            expect: lines("expect").concat(),
        }
    }

    fn each(&self, verdict: impl Fn(usize) -> String) -> String {
        let all = (0..self.nodes.len()).map(|at| format!("{} {}", self.nodes[at].name(), verdict(at)));
        all.collect::<Vec<_>>().join(", ")
    }

    fn filtered(&self, plugin: &dyn Plugin, word: impl Fn(&Rejection) -> &'static str) -> String {
        let filter = match plugin.pre_filter(&self.new, &self.snapshot) {
            Ok(prepared) => prepared.filter,
            Err(rejection) => {
                return format!("refused: {}", rejection.reasons().collect::<Vec<_>>().join(", "));
            }
        };
        let Some(filter) = filter else { return "all ok".to_owned() };
        self.each(|at| match filter.filter(&self.nodes[at]) {
            Ok(()) => "ok".to_owned(),
            Err(rejection) => word(&rejection).to_owned(),
        })
    }

    fn scored(&self, plugin: &dyn Plugin) -> String {
        let scorer = plugin.pre_score(&self.new, &self.nodes, &self.snapshot);
        let Some(scorer) = scorer else { return "nothing".to_owned() };
        let mut scores: Vec<_> = self.nodes.iter().map(|node| scorer.score(node)).collect();
        scorer.normalize(&self.nodes, &mut scores);
        self.each(|at| scores[at].to_string())
    }

    /// Whether scores are expected, not verdicts.
    fn is_about_scores(&self) -> bool {
        self.expect == "nothing"
            || self.expect.split(", ").all(|item| item.ends_with(|c: char| c.is_ascii_digit()))
    }
}

/// Every case of a file that turns out differently, with what was found.
fn differences(text: &str, found: impl Fn(&Case) -> String) -> (usize, String) {
    let cases: Vec<_> = text.split("\n\n").filter(|text| text.contains("\nexpect ")).collect();
    let differ = |text: &&str| {
        let case = Case::read(text);
        let found = found(&case);
        (found != case.expect).then(|| format!("{text}\nfound  {found}\n\n"))
    };
    (cases.len(), cases.iter().filter_map(differ).collect())
}

#[test]
fn spreading_is_as_upstreams() {
    let (count, differences) = differences(include_str!("pod_topology_spread/cases.txt"), |case| {
        let services = case.services.iter().map(|s| serde_json::from_value(s.clone()).expect("a service"));
        let services: Vec<Service> = services.collect();
        let listers = Listers { services: services.into(), ..Listers::default() };
        let plugin = PodTopologySpread::new(&PodTopologySpreadArgs::default(), &listers);
        let word = |rejection: &Rejection| match rejection.code {
            Code::Unresolvable => "never",
            _ => "no",
        };
        if case.is_about_scores() { case.scored(&plugin) } else { case.filtered(&plugin, word) }
    });
    assert_eq!((count, &*differences), (63, ""));
}

#[test]
fn affinity_is_as_upstreams() {
    let (count, differences) = differences(include_str!("inter_pod_affinity/cases.txt"), |case| {
        let plugin = InterPodAffinity::new(&case.affinity);
        let word = |rejection: &Rejection| match rejection.reasons().next() {
            Some("node(s) didn't match pod affinity rules") => "affinity",
            Some("node(s) didn't match pod anti-affinity rules") => "anti-affinity",
            Some("node(s) didn't satisfy existing pods anti-affinity rules") => "existing",
            _ => "?",
        };
        if case.is_about_scores() { case.scored(&plugin) } else { case.filtered(&plugin, word) }
    });
    assert_eq!((count, &*differences), (75, ""));
}
