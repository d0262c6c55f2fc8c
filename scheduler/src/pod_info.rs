//! A pod with what scheduling computes from it once.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1::{Affinity, Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::resources::{Resources, non_zero_request};

/// Labels of every namespace.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Protocol, host address and host port.
pub type HostPort = (String, String, i32);

/// All addresses of a host.
pub const ANY_ADDRESS: &str = "0.0.0.0";

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// A pod with what is computed from it once.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it counts for on its node.
    pub requests: Resources,
    /// CPU and memory it counts for in scores.
    pub non_zero: (i64, i64),
    /// Host ports it uses.
    pub ports: Vec<HostPort>,
    /// How important it is.
    pub priority: i32,
    /// Which pods it wants to be near to or away from; none if it does not say.
    pub affinity: Option<Box<AffinityTerms>>,
}

impl PodInfo {
    /// Computes what scheduling needs of `pod`.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let mut requests = Resources::accounted_for(&pod);
        requests.pods = 1;
        Self {
            non_zero: non_zero_request(&pod, &requests),
            requests,
            ports: host_ports(&pod),
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
            affinity: AffinityTerms::of(&pod).map(Box::new),
            pod,
        }
    }

    /// Name of the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace of the pod.
    #[must_use]
    pub fn namespace(&self) -> &str {
        namespace(&self.pod)
    }

    /// UID of the pod.
    #[must_use]
    pub fn uid(&self) -> &str {
        uid(&self.pod)
    }

    /// Labels of the pod.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        labels(&self.pod)
    }

    /// The node that was nominated for it; empty if none was.
    #[must_use]
    pub fn nominated_node(&self) -> &str {
        nominated_node(&self.pod)
    }

    /// Whether its deletion was asked for.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        api::pod::is_terminating(&self.pod)
    }

    /// Terms of one kind; none if the pod has no affinity.
    pub fn terms<'a, T>(&'a self, pick: impl FnOnce(&'a AffinityTerms) -> &'a [T]) -> &'a [T] {
        self.affinity.as_deref().map(pick).unwrap_or_default()
    }

    /// The claims for volumes that it uses, by name in its namespace.
    pub fn claims(&self) -> impl Iterator<Item = String> + '_ {
        claim_names(&self.pod)
    }
}

/// Namespace of a pod.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// UID of a pod.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Labels of a pod.
#[must_use]
pub fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
}

/// What a pod says of where it wants to be.
#[must_use]
pub fn affinity(pod: &Pod) -> Option<&Affinity> {
    pod.spec.as_ref()?.affinity.as_ref()
}

/// The node that was nominated for a pod; empty if none was.
#[must_use]
pub fn nominated_node(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default()
}

/// The node a pod is on; empty if it waits for one.
#[must_use]
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// The pod as it is on a node.
#[must_use]
pub fn on_node(pod: &Pod, node: &str) -> Pod {
    let mut placed = pod.clone();
    placed.spec.get_or_insert_default().node_name = Some(node.to_owned());
    placed
}

/// The claims for volumes that a pod uses: those it names, and those made for it from its own templates.
pub fn claim_names(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
    volumes.filter_map(|volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some(claim.claim_name.clone());
        }
        let made = volume.ephemeral.is_some();
        made.then(|| format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
    })
}

/// Ports of app containers and sidecars; on the host network they all are host ports (the API defaults them so).
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return vec![] };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| api::pod::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let protocol = port.protocol.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "TCP".into());
            let address =
                port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY_ADDRESS.into());
            Some((protocol, address, number))
        })
        .collect()
}

/// The terms of a pod's affinity to, and anti-affinity against, other pods.
#[derive(Clone, Debug, Default)]
pub struct AffinityTerms {
    /// Pods that must be near.
    pub required: Vec<Term>,
    /// Pods that must not be near.
    pub required_anti: Vec<Term>,
    /// Pods that had better be near, with weights; those that had better not have negative weights.
    pub preferred: Vec<(Term, i64)>,
    /// What cannot be read; the terms it stands among are not there then.
    pub fault: Option<String>,
}

impl AffinityTerms {
    /// The terms of a pod; none if it has no affinity to pods.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let affinity = affinity(pod)?;
        let (near, away) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        if near.is_none() && away.is_none() {
            return None;
        }
        let mut faults = Faults::default();
        let mut all = |what, terms: Option<&Vec<PodAffinityTerm>>| {
            faults.gather(what, terms.into_iter().flatten().map(|term| Term::new(pod, term)))
        };
        let required = all(
            "requiredAffinityTerms",
            near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        );
        let required_anti = all(
            "requiredAntiAffinityTerms",
            away.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        );
        let mut weighted = |what, terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let weigh = |term: &WeightedPodAffinityTerm| {
                Ok((Term::new(pod, &term.pod_affinity_term)?, sign * i64::from(term.weight)))
            };
            faults.gather(what, terms.into_iter().flatten().map(weigh))
        };
        let mut preferred = weighted(
            "preferredAffinityTerms",
            near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            1,
        );
        preferred.extend(weighted(
            "preferredAntiAffinityTerms",
            away.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            -1,
        ));
        Some(Self { required, required_anti, preferred, fault: faults.told() })
    }
}

/// Terms that cannot be read.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// The terms, or none of them if one cannot be read.
    fn gather<T>(&mut self, what: &str, terms: impl Iterator<Item = Result<T, String>>) -> Vec<T> {
        terms.collect::<Result<_, _>>().unwrap_or_else(|fault| {
            self.0.push(format!("{what}: {fault}"));
            Vec::new()
        })
    }

    /// All in one text.
    fn told(self) -> Option<String> {
        match &*self.0 {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        }
    }
}

/// One term, ready to be matched.
#[derive(Clone, Debug)]
pub struct Term {
    /// The label of nodes that says which are near to each other.
    pub key: String,
    selector: LabelSelector,
    namespaces: Vec<String>,
    by_namespace_labels: Option<LabelSelector>,
}

impl Term {
    fn new(owner: &Pod, term: &PodAffinityTerm) -> Result<Self, String> {
        let selector = LabelSelector::from_meta(term.label_selector.as_ref())?;
        let own = |keys: &Option<Vec<String>>, operator| -> Vec<Requirement> {
            let values = keys.iter().flatten().filter_map(|key| Some((key, labels(owner).get(key)?)));
            values.filter_map(|(key, v)| Requirement::new(key, operator, vec![v.clone()]).ok()).collect()
        };
        let mut more = own(&term.match_label_keys, Operator::In);
        more.extend(own(&term.mismatch_label_keys, Operator::NotIn));
        let named = term.namespaces.clone().unwrap_or_default();
        let by_labels = term.namespace_selector.as_ref();
        let own_only = named.is_empty() && by_labels.is_none();
        Ok(Self {
            key: term.topology_key.clone(),
            selector: with_requirements(selector, more),
            namespaces: if own_only { vec![namespace(owner).to_owned()] } else { named },
            by_namespace_labels: by_labels.map(|s| LabelSelector::from_meta(Some(s))).transpose()?,
        })
    }

    /// Whether the term is about `pod`.
    #[must_use]
    pub fn matches(&self, pod: &Pod, namespaces: &Namespaces) -> bool {
        let here = namespace(pod);
        let by_labels = || {
            let selector = self.by_namespace_labels.as_ref()?;
            Some(selector.matches(namespaces.get(here).unwrap_or(&NO_LABELS)))
        };
        (self.namespaces.iter().any(|n| n == here) || by_labels().unwrap_or(false))
            && self.selector.matches(labels(pod))
    }

    /// Whether the term is about `pod`, if namespaces that are chosen by their labels may be any.
    #[must_use]
    pub fn may_match(&self, pod: &Pod) -> bool {
        let here = namespace(pod);
        (self.by_namespace_labels.is_some() || self.namespaces.iter().any(|n| n == here))
            && self.selector.matches(labels(pod))
    }
}

/// The selector with further requirements. One that matches nothing stays so.
#[must_use]
pub fn with_requirements(selector: LabelSelector, more: Vec<Requirement>) -> LabelSelector {
    if more.is_empty() || selector.is_nothing() {
        return selector;
    }
    let all = selector.requirements().iter().cloned().chain(more).collect();
    LabelSelector::from_requirements(all)
}

/// Whether the pod matches all terms; no terms match nothing.
#[must_use]
pub fn matches_all(terms: &[Term], pod: &Pod, namespaces: &Namespaces) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, namespaces))
}
