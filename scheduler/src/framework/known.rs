//! What was found of each node for one kind of pod, kept for the next pod like it.
//!
//! Pods come in groups that are alike, and between one pod and the next few nodes change. Where nothing decides but the
//! node itself and the pods that are nominated to it, what was found of a node holds until one of these is another.
//! Nodes are told by their addresses, as they are copied whenever they change; what is held here is not used again for
//! another.

use std::sync::Arc;

use foldhash::HashMap;
use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use parking_lot::Mutex;

use super::{Nominated, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::plugins::selector::{node_affinity, node_selector};
use crate::plugins::taint_toleration::tolerations;
use crate::pod_info::{PodInfo, node_name};
use crate::preemption::Candidate;
use crate::snapshot::Snapshot;

/// So many kinds of pods are kept.
const KEPT: usize = 4;
/// More things that are said of nodes are not kept apart.
const MOST_KINDS: usize = 1000;

/// Whether it can go there.
const UNKNOWN: u32 = 0;
const FITS: u32 = 1;

/// Whether there is room to be made, and by whom.
pub type Room = Result<Candidate, Rejection>;

/// What was found of the nodes for one kind of pod.
pub struct Known {
    pod: Arc<PodInfo>,
    epoch: u64,
    /// The nodes of which something is known, as they were then.
    nodes: Vec<Option<Arc<NodeInfo>>>,
    /// Whether pods were nominated there; they are in `nominated`.
    has_nominated: Vec<bool>,
    nominated: HashMap<usize, Vec<Arc<PodInfo>>>,
    /// Where the nominated pods are, by UID: they are not in their own way.
    places: HashMap<String, usize>,
    own: Option<usize>,
    /// Whether the pod fits; from two on, what is said against it.
    fits: Vec<u32>,
    said: Vec<Rejection>,
    rooms: Vec<Option<Box<Room>>>,
    budgets: Vec<Arc<PodDisruptionBudget>>,
}

impl Known {
    fn new(pod: Arc<PodInfo>, snapshot: &Snapshot) -> Self {
        let count = snapshot.nodes.len();
        Self {
            pod,
            epoch: snapshot.epoch(),
            nodes: vec![None; count],
            has_nominated: vec![false; count],
            nominated: HashMap::default(),
            places: HashMap::default(),
            own: None,
            fits: vec![UNKNOWN; count],
            said: Vec::new(),
            rooms: (0..count).map(|_| None).collect(),
            budgets: Vec::new(),
        }
    }

    fn is_for(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        self.epoch == snapshot.epoch() && self.nodes.len() == snapshot.nodes.len() && alike(&self.pod, pod)
    }

    /// Whether what is known of the node is known of it as it is.
    fn holds(&self, at: usize, node: &Arc<NodeInfo>, nominated: &[Arc<PodInfo>]) -> bool {
        let same = self.nodes[at].as_ref().is_some_and(|known| Arc::ptr_eq(known, node));
        if !same || self.own == Some(at) {
            return false;
        }
        if !self.has_nominated[at] {
            return nominated.is_empty();
        }
        let known = self.nominated.get(&at).map(Vec::as_slice).unwrap_or_default();
        known.len() == nominated.len() && known.iter().zip(nominated).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Whether the pod fits on the node with those nominated to it, if that is known.
    #[must_use]
    pub fn fits(
        &self,
        at: usize,
        node: &Arc<NodeInfo>,
        nominated: &[Arc<PodInfo>],
    ) -> Option<Result<(), Rejection>> {
        match self.fits[at] {
            UNKNOWN => None,
            _ if !self.holds(at, node, nominated) => None,
            FITS => Some(Ok(())),
            said => Some(Err(self.said.get(said as usize - 2)?.clone())),
        }
    }

    /// What room there is to be made, if that is known.
    #[must_use]
    pub fn room(&self, at: usize, node: &Arc<NodeInfo>, nominated: &[Arc<PodInfo>]) -> Option<Room> {
        let room = self.rooms[at].as_deref()?;
        self.holds(at, node, nominated).then(|| room.clone())
    }

    /// Takes note of the node as it is; false: nothing may be noted of it.
    fn note(&mut self, at: usize, node: &Arc<NodeInfo>, nominated: &[Arc<PodInfo>], uid: &str) -> bool {
        if self.holds(at, node, nominated) {
            return true;
        }
        (self.fits[at], self.rooms[at]) = (UNKNOWN, None);
        self.has_nominated[at] = !nominated.is_empty();
        self.nominated.remove(&at);
        if nominated.iter().any(|other| other.uid() == uid) {
            self.nodes[at] = None;
            return false;
        }
        self.nodes[at] = Some(node.clone());
        if !nominated.is_empty() {
            self.nominated.insert(at, nominated.to_vec());
            self.places.extend(nominated.iter().map(|other| (other.uid().to_owned(), at)));
        }
        true
    }

    /// Remembers whether the pod fits.
    pub fn learn_fit(
        &mut self,
        at: usize,
        node: &Arc<NodeInfo>,
        nominated: &[Arc<PodInfo>],
        uid: &str,
        verdict: &Result<(), Rejection>,
    ) {
        if (self.fits[at] != UNKNOWN && self.holds(at, node, nominated))
            || !self.note(at, node, nominated, uid)
        {
            return;
        }
        self.fits[at] = match verdict {
            Ok(()) => FITS,
            Err(rejection) => {
                let known = self.said.iter().rposition(|said| said == rejection);
                if known.is_none() && self.said.len() == MOST_KINDS {
                    return;
                }
                let place = known.unwrap_or_else(|| {
                    self.said.push(rejection.clone());
                    self.said.len() - 1
                });
                u32::try_from(place + 2).unwrap_or(UNKNOWN)
            }
        };
    }

    /// Remembers what room there is to be made.
    pub fn learn_room(
        &mut self,
        at: usize,
        node: &Arc<NodeInfo>,
        nominated: &[Arc<PodInfo>],
        uid: &str,
        room: &Room,
    ) {
        if self.note(at, node, nominated, uid) && self.rooms[at].is_none() {
            self.rooms[at] = Some(Box::new(room.clone()));
        }
    }

    /// What room there is depends on the budgets; others make all of it unknown.
    pub fn with_budgets(&mut self, budgets: &[Arc<PodDisruptionBudget>]) {
        let same = self.budgets.len() == budgets.len()
            && self.budgets.iter().zip(budgets).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.budgets = budgets.to_vec();
            self.rooms.iter_mut().for_each(|room| *room = None);
        }
    }
}

/// What is known for the last kinds of pods.
#[derive(Default)]
pub struct Memo(Mutex<Vec<Known>>);

impl Memo {
    /// What is known for pods like this one, to be given back with [`Memo::keep`]. None if more decides about the pod
    /// than each node for itself.
    pub fn take(&self, pod: &Arc<PodInfo>, prepared: &Prepared, snapshot: &Snapshot) -> Option<Known> {
        if !prepared.is_local() || !has_plain_volumes(pod) {
            return None;
        }
        let mut kept = self.0.lock();
        let found = kept.iter().position(|known| known.is_for(pod, snapshot));
        // Pods that were nominated and are gone are not worth more memory than that.
        let most = 2 * snapshot.nodes.len() + 1000;
        let found = found.map(|at| kept.remove(at)).filter(|known| known.places.len() < most);
        let mut known = found.unwrap_or_else(|| Known::new(pod.clone(), snapshot));
        known.own = known.places.get(pod.uid()).copied();
        Some(known)
    }

    /// Keeps it for the next pod.
    pub fn keep(&self, known: Option<Known>) {
        let Some(known) = known else { return };
        let mut kept = self.0.lock();
        kept.truncate(KEPT - 1);
        kept.insert(0, known);
    }
}

/// The pods nominated to each node, by its place; empty if none is nominated anywhere.
#[must_use]
pub fn by_place<'a>(nominated: &'a Nominated, snapshot: &Snapshot) -> Vec<&'a [Arc<PodInfo>]> {
    let mut all: Vec<&[Arc<PodInfo>]> = Vec::new();
    if !nominated.is_empty() {
        all.resize(snapshot.nodes.len(), &[]);
        for (node, pods) in nominated {
            if let Some(at) = snapshot.place(node) {
                all[at] = pods;
            }
        }
    }
    all
}

/// Whether two pods are the same to every node.
fn alike(one: &PodInfo, other: &PodInfo) -> bool {
    one.requests == other.requests
        && one.ports == other.ports
        && one.priority == other.priority
        && node_name(&one.pod) == node_name(&other.pod)
        && node_selector(&one.pod) == node_selector(&other.pod)
        && node_affinity(&one.pod) == node_affinity(&other.pod)
        && tolerations(&one.pod) == tolerations(&other.pod)
}

/// Whether the pod has no volume that others may be in the way of, and no claims.
fn has_plain_volumes(pod: &PodInfo) -> bool {
    let Some(spec) = &pod.pod.spec else { return true };
    let plain = |volume: &Volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
            || volume.empty_dir.is_some()
            || volume.host_path.is_some()
    };
    spec.volumes.iter().flatten().all(plain) && spec.resource_claims.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Cache;
    use crate::config::args::DefaultPreemptionArgs;
    use crate::framework::{Diagnosis, Framework, Search};
    use crate::plugins::registry::Parts;
    use crate::preemption::{Attempt, candidates};
    use crate::testing::{cpu, framework, merge, pod_with};

    fn node(random: &mut StdRng, name: &str) -> Arc<k8s_openapi::api::core::v1::Node> {
        let taints = random.random_bool(0.2).then(|| json!([{"key": "k", "effect": "NoSchedule"}]));
        let disk = if random.random_bool(0.5) { "ssd" } else { "hdd" };
        let object = json!({"metadata": {"name": name, "labels": {"disk": disk}},
            "spec": {"taints": taints, "unschedulable": random.random_bool(0.1)},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "6"}}});
        Arc::new(serde_json::from_value(object).expect("a node"))
    }

    /// One of few kinds of pods.
    fn pod(random: &mut StdRng, name: &str) -> Arc<PodInfo> {
        let kind = random.random_range(0..6);
        let mut spec = cpu(["500m", "1", "1500m"][kind % 3]);
        let priority = if kind % 2 == 0 { 0 } else { 5 };
        let more = json!({"priority": priority,
            "nodeSelector": (kind == 3).then(|| json!({"disk": "ssd"})),
            "tolerations": (kind > 3).then(|| json!([{"operator": "Exists"}]))});
        merge(&mut spec, more);
        if kind == 5 {
            spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        }
        // Now and then one for which more than each node by itself decides.
        if random.random_bool(0.1) {
            let term = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]);
            spec["affinity"] =
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
        }
        pod_with(
            name,
            json!({"metadata": {"labels": {"a": Value::from(["b", "c"][kind % 2])}}, "spec": spec}),
        )
    }

    /// All that is found for a pod, as text.
    fn found(
        framework: &Framework,
        pod: &Arc<PodInfo>,
        snapshot: &Snapshot,
        nominated: &Nominated,
        budgets: &[Arc<PodDisruptionBudget>],
    ) -> String {
        let (prepared, allowed) = framework.prepare(pod, snapshot);
        let mut diagnosis = Diagnosis::new(snapshot.nodes.len());
        let search = Search { percentage: 100, threads: 2, ..Search::default() };
        let choice = framework.find_feasible(pod, &prepared, snapshot, nominated, search, &mut diagnosis);
        let choice = choice.expect("nothing fails");
        let names: Vec<_> = choice.feasible.iter().map(|node| node.name()).collect();
        let attempt = Attempt {
            framework,
            pod,
            snapshot,
            prepared: &prepared,
            nominated,
            diagnosis: &diagnosis,
            budgets,
            extenders: &[],
            now: jiff::Timestamp::UNIX_EPOCH,
            threads: 2,
        };
        let (rooms, why_not) = candidates(&attempt, DefaultPreemptionArgs::default(), 0);
        let rooms: Vec<_> = rooms
            .iter()
            .map(|c| (c.node.as_str(), c.violations, c.victims.iter().map(|v| v.name()).collect::<Vec<_>>()))
            .collect();
        format!("{allowed:?} {names:?} {diagnosis} {rooms:?} {why_not}")
    }

    fn budget(allowed: i32) -> Arc<PodDisruptionBudget> {
        let object = json!({"metadata": {"name": "b", "namespace": "ns"}, "status": {"disruptionsAllowed": allowed,
            "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
            "spec": {"selector": {"matchLabels": {"a": "b"}}}});
        Arc::new(serde_json::from_value(object).expect("a budget"))
    }

    #[test]
    fn what_is_known_is_what_would_be_found() {
        for seed in 0..25 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut cache, mut snapshot, mut nominated) =
                (Cache::default(), Snapshot::default(), Nominated::new());
            let mut budgets = vec![budget(1)];
            let count = random.random_range(1..8);
            (0..count).for_each(|n| cache.set_node(node(&mut random, &format!("n{n}"))));
            let remembering = framework(&Parts::default());
            let mut placed: Vec<Arc<PodInfo>> = Vec::new();
            for step in 0..80 {
                let on = format!("n{}", random.random_range(0..count));
                match random.random_range(0..12) {
                    0..5 => {
                        let pod = pod(&mut random, &format!("p{step}"));
                        cache.assume(&pod, &on);
                        placed.push(pod);
                    }
                    5..8 if !placed.is_empty() => {
                        let gone = placed.swap_remove(random.random_range(0..placed.len()));
                        cache.remove_pod(gone.uid());
                    }
                    8 => {
                        let name = format!("w{}", random.random_range(0..4));
                        let waiting = pod(&mut random, &name);
                        nominated.values_mut().for_each(|pods| pods.retain(|p| p.uid() != waiting.uid()));
                        nominated.retain(|_, pods| !pods.is_empty());
                        nominated.entry(on).or_default().push(waiting);
                    }
                    9 => nominated.clear(),
                    10 => budgets = vec![budget(random.random_range(0..3))],
                    _ => cache.set_node(node(&mut random, &on)),
                }
                cache.update(&mut snapshot);
                for _ in 0..3 {
                    // Some of those that wait have a node nominated.
                    let name = format!("w{}", random.random_range(0..8));
                    let same = nominated.values().flatten().find(|p| p.uid() == name).cloned();
                    let pod = same.unwrap_or_else(|| pod(&mut random, &name));
                    let fresh = framework(&Parts::default());
                    assert_eq!(
                        found(&remembering, &pod, &snapshot, &nominated, &budgets),
                        found(&fresh, &pod, &snapshot, &nominated, &budgets),
                        "seed {seed}, step {step}"
                    );
                }
            }
        }
    }
}
