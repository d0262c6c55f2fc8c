//! Affinity and spreading on random clusters that change, against counting everything anew by the letter of the
//! rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::framework::{Framework, Score};
use crate::plugins::registry::Parts;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::testing::{self, pod_with};

const APPS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 3] = ["kubernetes.io/hostname", "zone", "rack"];

/// What a pod wants, as simple as can be.
#[derive(Clone, Debug)]
struct Wish {
    app: &'static str,
    near: Option<(&'static str, &'static str)>,
    away: Option<(&'static str, &'static str)>,
    likes: Option<(&'static str, &'static str, i64)>,
    spread: Option<Spread>,
    /// Where it had better be spread.
    evenly: Option<Spread>,
    terminating: bool,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    key: &'static str,
    skew: i64,
    min_domains: Option<usize>,
    honor_taints: bool,
}

#[derive(Clone, Debug)]
struct Host {
    labels: BTreeMap<&'static str, String>,
    tainted: bool,
}

fn pick<T: Copy>(random: &mut StdRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())]
}

fn wish(random: &mut StdRng) -> Wish {
    let term = |random: &mut StdRng, often: f64| {
        random.random_bool(often).then(|| (pick(random, &APPS), pick(random, &KEYS)))
    };
    let spread = |random: &mut StdRng, few: f64| {
        random.random_bool(0.4).then(|| Spread {
            key: pick(random, &KEYS),
            skew: random.random_range(1..3),
            min_domains: random.random_bool(few).then_some(3),
            honor_taints: random.random_bool(0.5),
        })
    };
    Wish {
        app: pick(random, &APPS),
        near: term(random, 0.3),
        away: term(random, 0.3),
        likes: term(random, 0.3).map(|(app, key)| (app, key, random.random_range(1..100))),
        spread: spread(random, 0.3),
        evenly: spread(random, 0.0),
        terminating: random.random_bool(0.1),
    }
}

fn term((app, key): (&str, &str)) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn pod(name: &str, wish: &Wish) -> Arc<PodInfo> {
    let required = |t: Option<_>| t.map(|t| json!([term(t)]));
    let likes = wish.likes.map(|(app, key, w)| json!([{"weight": w, "podAffinityTerm": term((app, key))}]));
    let constraint = |s: Spread, otherwise: &str| {
        json!({"maxSkew": s.skew, "topologyKey": s.key, "whenUnsatisfiable": otherwise,
               "minDomains": s.min_domains, "nodeTaintsPolicy": if s.honor_taints { "Honor" } else { "Ignore" },
               "labelSelector": {"matchLabels": {"app": wish.app}}})
    };
    let hard = wish.spread.map(|s| constraint(s, "DoNotSchedule"));
    let soft = wish.evenly.map(|s| constraint(s, "ScheduleAnyway"));
    let spread: Vec<_> = hard.into_iter().chain(soft).collect();
    let deleted = wish.terminating.then_some("2026-01-01T00:00:00Z");
    pod_with(
        name,
        json!({
        "metadata": {"labels": {"app": wish.app}, "deletionTimestamp": deleted},
        "spec": {
            "affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required(wish.near),
                                "preferredDuringSchedulingIgnoredDuringExecution": likes},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required(wish.away)}},
            "topologySpreadConstraints": spread}}),
    )
}

fn host(random: &mut StdRng, name: &str) -> Host {
    let mut labels = BTreeMap::from([("kubernetes.io/hostname", name.to_owned())]);
    for key in ["zone", "rack"] {
        if random.random_bool(0.9) {
            labels.insert(key, random.random_range(0..3).to_string());
        }
    }
    Host { labels, tainted: random.random_bool(0.2) }
}

/// What there is, by name.
#[derive(Default)]
struct World {
    hosts: BTreeMap<String, Host>,
    pods: BTreeMap<String, (Wish, String)>,
}

impl World {
    /// Pods on hosts that share the value of `key` with `host`.
    fn in_domain<'a>(&'a self, host: &'a Host, key: &'a str) -> impl Iterator<Item = &'a Wish> {
        let domain = host.labels.get(key);
        let near = move |name: &String| domain.is_some() && self.hosts[name].labels.get(key) == domain;
        self.pods.values().filter(move |(_, on)| near(on)).map(|(wish, _)| wish)
    }

    fn affinity_allows(&self, wish: &Wish, host: &Host) -> bool {
        if let Some((app, key)) = wish.near {
            let anywhere =
                self.pods.values().any(|(p, on)| p.app == app && self.hosts[on].labels.contains_key(key));
            let near = self.in_domain(host, key).any(|p| p.app == app);
            let starts = !anywhere && wish.app == app;
            if !host.labels.contains_key(key) || !(near || starts) {
                return false;
            }
        }
        if wish.away.is_some_and(|(app, key)| self.in_domain(host, key).any(|p| p.app == app)) {
            return false;
        }
        !KEYS.iter().any(|key| self.in_domain(host, key).any(|p| p.away == Some((wish.app, key))))
    }

    fn spreading_allows(&self, wish: &Wish, host: &Host) -> bool {
        let Some(spread) = wish.spread else { return true };
        let Some(domain) = host.labels.get(spread.key) else { return false };
        let counts = |h: &&Host| !(spread.honor_taints && h.tainted);
        let eligible = || self.hosts.values().filter(counts);
        let domains: BTreeSet<_> = eligible().filter_map(|h| h.labels.get(spread.key)).collect();
        let in_domain = |domain: &String| {
            let here = |on: &String| {
                let on = &self.hosts[on];
                counts(&on) && on.labels.get(spread.key) == Some(domain)
            };
            let alike = |p: &Wish| p.app == wish.app && !p.terminating;
            self.pods.values().filter(|(p, on)| alike(p) && here(on)).count() as i64
        };
        let enough = domains.len() >= spread.min_domains.unwrap_or(1);
        let least = if enough { domains.iter().map(|d| in_domain(d)).min().unwrap_or(0) } else { 0 };
        in_domain(domain) + 1 - least <= spread.skew
    }

    /// How evenly pods are spread with one more on the host, from 0 to 100, for each host: the emptier its domain, the
    /// better, and fewer domains count more. As upstream's scoring.go.
    fn evenness(&self, wish: &Wish) -> Option<BTreeMap<&str, i64>> {
        let spread = wish.evenly?;
        let alike = |p: &Wish| p.app == wish.app && !p.terminating;
        let hosts: BTreeMap<_, _> =
            self.hosts.iter().filter(|(_, h)| h.labels.contains_key(spread.key)).collect();
        let domains: BTreeSet<_> = hosts.values().map(|h| &h.labels[spread.key]).collect();
        let weight = (domains.len() as f64 + 2.0).ln();
        let crowd = |host: &Host| {
            let counts = |on: &Host| {
                let here = on.labels.get(spread.key) == Some(&host.labels[spread.key]);
                // Of hosts, all pods count.
                here && (spread.key == KEYS[0] || !(spread.honor_taints && on.tainted))
            };
            let pods = self.pods.values().filter(|(p, on)| alike(p) && counts(&self.hosts[on])).count();
            (pods as f64 * weight + (spread.skew - 1) as f64).round() as i64
        };
        let crowds: BTreeMap<_, _> = hosts.iter().map(|(name, host)| (name.as_str(), crowd(host))).collect();
        let (least, most) = (crowds.values().min().copied(), crowds.values().max().copied());
        let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
        let score = |name: &String| {
            let crowd = crowds.get(name.as_str());
            crowd.map_or(0, |crowd| if most == 0 { 100 } else { 100 * (most + least - crowd) / most })
        };
        Some(self.hosts.keys().map(|name| (name.as_str(), score(name))).collect())
    }

    /// The sum of weights for and against the host.
    fn liking(&self, wish: &Wish, host: &Host) -> i64 {
        let own = wish.likes.map_or(0, |(app, key, weight)| {
            self.in_domain(host, key).filter(|p| p.app == app).count() as i64 * weight
        });
        let theirs = |key: &&str| -> i64 {
            let key = *key;
            let likes =
                |p: &Wish| p.likes.filter(|(app, k, _)| (*app, *k) == (wish.app, key)).map_or(0, |l| l.2);
            let needs = |p: &Wish| i64::from(p.near == Some((wish.app, key)));
            self.in_domain(host, key).map(|p| likes(p) + needs(p)).sum()
        };
        own + KEYS.iter().map(theirs).sum::<i64>()
    }
}

/// One filter or one score of the framework by itself.
fn only<'a>(framework: &'a Framework, name: &str) -> &'a Arc<dyn crate::framework::Plugin> {
    framework.plugin(name).expect("a default plugin")
}

fn node(name: &str, host: &Host) -> Arc<k8s_openapi::api::core::v1::Node> {
    let taints = if host.tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
    let object = json!({"metadata": {"name": name, "labels": host.labels}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(object).expect("a node"))
}

fn compare(framework: &Framework, world: &World, snapshot: &Snapshot, wish: &Wish, what: &str) {
    let new = pod("new", wish);
    let allowed = |plugin: &str| -> HashMap<String, bool> {
        let filter = only(framework, plugin).pre_filter(&new, snapshot).expect("prepared").filter;
        let verdict =
            |node: &crate::node_info::NodeInfo| filter.as_ref().is_none_or(|f| f.filter(node).is_ok());
        snapshot.nodes.iter().map(|node| (node.name().to_owned(), verdict(node))).collect()
    };
    let (affinity, spreading) = (allowed("InterPodAffinity"), allowed("PodTopologySpread"));
    let scorer: Option<Box<dyn Score>> =
        only(framework, "InterPodAffinity").pre_score(&new, &snapshot.nodes, snapshot);
    let spreader = only(framework, "PodTopologySpread").pre_score(&new, &snapshot.nodes, snapshot);
    let evenness = spreader.map(|spreader| {
        let mut scores: Vec<_> = snapshot.nodes.iter().map(|node| spreader.score(node)).collect();
        spreader.normalize(&snapshot.nodes, &mut scores);
        snapshot.nodes.iter().map(|node| node.name()).zip(scores).collect::<BTreeMap<_, _>>()
    });
    assert_eq!(evenness, world.evenness(wish), "{what}: evenness of {wish:?}");
    for (name, host) in &world.hosts {
        assert_eq!(
            affinity[name],
            world.affinity_allows(wish, host),
            "{what}: affinity of {wish:?} on {name}"
        );
        assert_eq!(
            spreading[name],
            world.spreading_allows(wish, host),
            "{what}: spread of {wish:?} on {name}"
        );
        let score = scorer.as_ref().map_or(0, |s| s.score(snapshot.node(name).expect("a node")));
        assert_eq!(score, world.liking(wish, host), "{what}: liking of {wish:?} on {name}");
    }
}

#[test]
fn affinity_and_spreading_are_as_if_counted_anew() {
    let framework = testing::framework(&Parts::default());
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut cache, mut snapshot, mut world) = (Cache::default(), Snapshot::default(), World::default());
        for n in 0..random.random_range(2..7) {
            let name = format!("n{n}");
            let host = host(&mut random, &name);
            cache.set_node(node(&name, &host));
            world.hosts.insert(name, host);
        }
        let wishes: Vec<_> = (0..4).map(|_| wish(&mut random)).collect();
        for step in 0..40 {
            let name = format!("p{}", random.random_range(0..12));
            if world.pods.remove(&name).is_some() {
                cache.remove_pod(&name);
            } else {
                let wish = wishes[random.random_range(0..wishes.len())].clone();
                let names: Vec<_> = world.hosts.keys().cloned().collect();
                let on = names[random.random_range(0..names.len())].clone();
                cache.assume(&pod(&name, &wish), &on);
                world.pods.insert(name, (wish, on));
            }
            if random.random_bool(0.05) {
                let name = world.hosts.keys().next().cloned().expect("a host");
                let host = host(&mut random, &name);
                cache.set_node(node(&name, &host));
                world.hosts.insert(name, host);
            }
            cache.update(&mut snapshot);
            for wish in &wishes {
                compare(&framework, &world, &snapshot, wish, &format!("seed {seed}, step {step}"));
            }
        }
    }
}
