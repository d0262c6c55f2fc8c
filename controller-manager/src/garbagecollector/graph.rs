//! Who owns whom. Pure: changes come in, work comes out.
//!
//! A node may be virtual: an owner that a dependent names but that no cache has shown yet.

pub use super::identity::Identity;
use super::{FOREGROUND, ORPHAN};
use crate::common::meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{HashMap, HashSet, VecDeque};

/// What should be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// The object may have to be deleted, or its deletion finished.
    Delete(String),
    /// The object is being deleted and lets go of its dependents first.
    Orphan(String),
    /// It is to be said that an object names an owner that is in another namespace.
    Misplaced(Box<Misplaced>),
}

/// An object that names an owner that is in another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Misplaced {
    /// Which object.
    pub dependent: Identity,
    /// What it calls its owner.
    pub owner: Identity,
}

/// An object in the graph.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Which object it is.
    pub identity: Identity,
    /// Its owners as last seen.
    pub owners: Vec<OwnerReference>,
    /// UIDs of the objects that name it as owner.
    pub dependents: HashSet<String>,
    /// A cache has shown it.
    pub observed: bool,
    /// Its deletion has been asked for.
    pub deleting: bool,
    /// Its deletion waits for dependents.
    pub deleting_dependents: bool,
    /// Its deletion lets go of its dependents first.
    pub orphaning: bool,
}

impl Node {
    /// Whether the owner that a dependent refers to may be another than this one.
    fn may_not_be(&self, reference: &OwnerReference, dependent: &Identity) -> bool {
        self.identity.is_out_of_reach(dependent)
            || !self.identity.is_called(reference)
            // One without a namespace that only dependents know of: it may be in theirs.
            || (!self.observed && self.identity.namespace != dependent.namespace)
    }

    /// Says that the owner with that UID is not in the node's namespace.
    fn misplaced(&self, owner: &str) -> Option<Work> {
        let reference = self.owners.iter().find(|reference| reference.uid == owner)?;
        let owner = Identity::of_owner(reference, &self.identity.namespace);
        Some(Work::Misplaced(Box::new(Misplaced { dependent: self.identity.clone(), owner })))
    }
}

/// How many absent owners are remembered.
const ABSENT: usize = 500;

/// All nodes by UID.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    absent: HashSet<Identity>,
    absent_order: VecDeque<Identity>,
}

impl Graph {
    /// The node of an object.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The dependents of an object.
    pub fn dependents(&self, uid: &str) -> Vec<&Node> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        node.dependents.iter().filter_map(|dependent| self.nodes.get(dependent)).collect()
    }

    /// The dependents whose reference says that the owner's deletion waits for them.
    pub fn blocking_dependents(&self, uid: &str) -> Vec<&Node> {
        let blocks = |node: &&Node| {
            node.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        self.dependents(uid).into_iter().filter(blocks).collect()
    }

    /// Remembers that an object does not exist; UIDs never come back.
    pub fn remember_absent(&mut self, identity: Identity) {
        if self.absent.insert(identity.clone()) {
            self.absent_order.push_back(identity);
            if self.absent_order.len() > ABSENT
                && let Some(oldest) = self.absent_order.pop_front()
            {
                self.absent.remove(&oldest);
            }
        }
    }

    /// Whether the object is known not to exist.
    pub fn is_absent(&self, identity: &Identity) -> bool {
        self.absent.contains(identity)
    }

    /// A cache shows an object, for the first time or changed.
    pub fn observe(&mut self, identity: Identity, metadata: &ObjectMeta) -> Vec<Work> {
        let uid = identity.uid.clone();
        let owners = metadata.owner_references.clone().unwrap_or_default();
        let mut work = self.misnamed(&identity);
        let node = self.nodes.entry(uid.clone()).or_default();
        let before = std::mem::replace(&mut node.owners, owners.clone());
        node.identity = identity;
        node.observed = true;
        node.deleting |= meta::is_deleting(metadata);
        self.link(&uid, &before, &owners, &mut work);
        work.extend(self.transition(&uid, metadata));
        work
    }

    /// Whom it concerns that an owner, known by name only until now, turns out to be another than they say.
    fn misnamed(&self, identity: &Identity) -> Vec<Work> {
        let known = self.nodes.get(&identity.uid);
        if known.is_none_or(|node| node.observed || node.identity == *identity) {
            return Vec::new();
        }
        let (_, wrong) = identity.partition(&self.dependents(&identity.uid));
        let concern = |dependent: &Node| {
            let misplaced = identity.is_out_of_reach(&dependent.identity);
            let told = misplaced.then(|| dependent.misplaced(&identity.uid)).flatten();
            told.into_iter().chain([Work::Delete(dependent.identity.uid.clone())])
        };
        wrong.into_iter().flat_map(concern).collect()
    }

    fn link(&mut self, uid: &str, before: &[OwnerReference], now: &[OwnerReference], work: &mut Vec<Work>) {
        for gone in before.iter().filter(|owner| !now.iter().any(|new| new.uid == owner.uid)) {
            self.unlink(uid, gone, work);
        }
        let unblocked = |owner: &&OwnerReference| {
            let was = |old: &&OwnerReference| old.uid == owner.uid && old.block_owner_deletion == Some(true);
            owner.block_owner_deletion != Some(true) && before.iter().any(|old| was(&old))
        };
        for owner in now.iter().filter(unblocked) {
            work.extend(self.waiting(&owner.uid));
        }
        let Some(identity) = self.nodes.get(uid).map(|node| node.identity.clone()) else { return };
        let mut suspicious = false;
        for owner in now.iter().filter(|owner| !before.iter().any(|old| old.uid == owner.uid)) {
            let called = Identity::of_owner(owner, &identity.namespace);
            let node = self
                .nodes
                .entry(owner.uid.clone())
                .or_insert_with(|| Node { identity: called.clone(), ..Default::default() });
            node.dependents.insert(uid.to_owned());
            if !node.observed {
                work.push(Work::Delete(owner.uid.clone()));
            }
            if !suspicious && node.may_not_be(owner, &identity) {
                suspicious = true;
                work.push(Work::Delete(uid.to_owned()));
                if node.observed && node.identity.is_out_of_reach(&identity) {
                    let dependent = identity.clone();
                    work.push(Work::Misplaced(Box::new(Misplaced { dependent, owner: called })));
                }
            }
        }
    }

    fn unlink(&mut self, uid: &str, owner: &OwnerReference, work: &mut Vec<Work>) {
        if let Some(node) = self.nodes.get_mut(&owner.uid) {
            node.dependents.remove(uid);
            if !node.observed && node.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
                return;
            }
        }
        work.extend(self.waiting(&owner.uid));
    }

    /// An owner whose deletion waits for dependents is looked at when one of them goes.
    fn waiting(&self, uid: &str) -> Option<Work> {
        self.nodes.get(uid).filter(|node| node.deleting_dependents).map(|_| Work::Delete(uid.to_owned()))
    }

    /// What the finalizers of an object that is being deleted ask for.
    fn transition(&mut self, uid: &str, metadata: &ObjectMeta) -> Vec<Work> {
        let Some(node) = self.nodes.get_mut(uid) else { return Vec::new() };
        let mut work = Vec::new();
        let asks = |finalizer| meta::is_deleting(metadata) && meta::has_finalizer(metadata, finalizer);
        if asks(ORPHAN) && !node.orphaning {
            node.orphaning = true;
            work.push(Work::Orphan(uid.to_owned()));
        }
        if asks(FOREGROUND) && !node.deleting_dependents {
            node.deleting_dependents = true;
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
            work.push(Work::Delete(uid.to_owned()));
        }
        work
    }

    /// An object is gone: its dependents are looked at, and owners that wait for it.
    pub fn forget(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work = Vec::new();
        for owner in &node.owners {
            self.unlink(uid, owner, &mut work);
        }
        if !node.dependents.is_empty() {
            self.remember_absent(node.identity.clone());
            work.extend(node.dependents.iter().cloned().map(Work::Delete));
            // Dependents stay linked to it until they go too or lose the reference.
            let virtual_node =
                Node { identity: node.identity, dependents: node.dependents, ..Default::default() };
            self.nodes.insert(uid.to_owned(), virtual_node);
        }
        work
    }

    /// The server has no such object. That is the end of it, unless somebody knows better: a cache that has shown the
    /// object by another name, or dependents that call it by another, which is to be tried next. Then only those that
    /// call it by this name are concerned. True: it is to be looked at again.
    pub fn not_found(&mut self, identity: &Identity) -> (Vec<Work>, bool) {
        let Some(node) = self.nodes.get(&identity.uid) else { return (Vec::new(), false) };
        let dependents = self.dependents(&identity.uid);
        let (right, wrong) = identity.partition(&dependents);
        let known_better = if node.observed { node.identity != *identity } else { !wrong.is_empty() };
        if !known_better {
            return (self.forget(&identity.uid), false);
        }
        let work: Vec<_> = right.iter().map(|node| Work::Delete(node.identity.uid.clone())).collect();
        let asked = !node.observed && node.identity == *identity;
        let next = if asked { identity.alternate(&wrong) } else { None };
        if !work.is_empty() {
            self.remember_absent(identity.clone());
        }
        let again = next.is_some();
        if let (Some(next), Some(node)) = (next, self.nodes.get_mut(&identity.uid)) {
            node.identity = next;
        }
        (work, again)
    }

    /// How many nodes there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn identity(uid: &str) -> Identity {
        Identity {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
        }
    }

    fn owned(owners: &[&str], finalizer: Option<&str>, deleting: bool) -> ObjectMeta {
        let reference = |uid: &&str| OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: (*uid).into(),
            uid: (*uid).into(),
            block_owner_deletion: Some(true),
            controller: None,
        };
        ObjectMeta {
            owner_references: Some(owners.iter().map(reference).collect()),
            finalizers: finalizer.map(|finalizer| vec![finalizer.to_owned()]),
            deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..Default::default()
        }
    }

    fn sorted(mut work: Vec<Work>) -> Vec<Work> {
        work.sort();
        work
    }

    fn delete(uid: &str) -> Work {
        Work::Delete(uid.to_owned())
    }

    #[test]
    fn unknown_owner_is_looked_at_and_known_one_is_not() {
        let mut graph = Graph::default();
        assert_eq!(graph.observe(identity("a"), &owned(&["o"], None, false)), [delete("o")]);
        assert_eq!(graph.observe(identity("o"), &owned(&[], None, false)), []);
        assert_eq!(graph.observe(identity("b"), &owned(&["o"], None, false)), []);
        assert_eq!(graph.dependents("o").len(), 2);
    }

    #[test]
    fn newcomer_with_an_absent_owner_is_found() {
        let mut graph = Graph::default();
        graph.observe(identity("a"), &owned(&["o"], None, false));
        graph.forget("o");
        assert_eq!(graph.observe(identity("b"), &owned(&["o"], None, false)), [delete("o")]);
    }

    #[test]
    fn end_of_the_owner_concerns_its_dependents() {
        let mut graph = Graph::default();
        graph.observe(identity("o"), &owned(&[], None, false));
        graph.observe(identity("a"), &owned(&["o"], None, false));
        assert_eq!(graph.forget("o"), [delete("a")]);
        assert!(graph.is_absent(&identity("o")));
        assert_eq!(graph.forget("a"), []);
        assert_eq!(graph.len(), 0);
    }

    #[test]
    fn foreground_deletion_wakes_dependents_and_each_end_wakes_the_owner() {
        let mut graph = Graph::default();
        graph.observe(identity("o"), &owned(&[], None, false));
        graph.observe(identity("a"), &owned(&["o"], None, false));
        graph.observe(identity("b"), &owned(&["o"], None, false));
        let work = graph.observe(identity("o"), &owned(&[], Some(FOREGROUND), true));
        assert_eq!(sorted(work), [delete("a"), delete("b"), delete("o")]);
        assert_eq!(graph.observe(identity("o"), &owned(&[], Some(FOREGROUND), true)), []);
        assert_eq!(graph.blocking_dependents("o").len(), 2);
        assert_eq!(graph.forget("a"), [delete("o")]);
        // A dependent that lets go counts like one that ends.
        assert_eq!(graph.observe(identity("b"), &owned(&[], None, false)), [delete("o")]);
        assert!(graph.blocking_dependents("o").is_empty());
    }

    /// As upstream's TestProcessEvent: whatever comes and goes, owners and dependents know each other.
    #[test]
    fn both_ends_of_every_reference_know_it() {
        for story in [
            "+1 +2:1 +3:1,2",
            "+1 +2:1 +3:1,2 +4:2 -2",
            "+1 +2:1 +3:1,2 +4:3 +2:4",
            "+4:2 +3:1,2 +2:1 +1 -2",
            "+4:2 -4 +3:2 +3 +2",
        ] {
            let mut graph = Graph::default();
            for event in story.split(' ') {
                match event.strip_prefix('+') {
                    Some(added) => {
                        let (uid, owners) = added.split_once(':').unwrap_or((added, ""));
                        let owners: Vec<_> = owners.split(',').filter(|owner| !owner.is_empty()).collect();
                        graph.observe(identity(uid), &owned(&owners, None, false));
                    }
                    None => drop(graph.forget(&event[1..])),
                }
                for (uid, node) in &graph.nodes {
                    let knows = |owner: &OwnerReference| graph.nodes[&owner.uid].dependents.contains(uid);
                    assert!(node.owners.iter().all(knows), "{story}: owners of {uid} after {event}");
                    let names = |dependent: &String| {
                        graph.nodes[dependent].owners.iter().any(|owner| owner.uid == *uid)
                    };
                    assert!(node.dependents.iter().all(names), "{story}: dependents of {uid} after {event}");
                }
            }
        }
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        let orphan = [Work::Orphan("o".to_owned())];
        assert_eq!(graph.observe(identity("o"), &owned(&[], Some(ORPHAN), true)), orphan);
        assert_eq!(graph.observe(identity("o"), &owned(&[], Some(ORPHAN), true)), []);
    }

    fn elsewhere(uid: &str) -> Identity {
        Identity { namespace: "other".into(), ..identity(uid) }
    }

    fn misplaced(dependent: Identity) -> Work {
        let owner = Identity { namespace: dependent.namespace.clone(), ..identity("o") };
        Work::Misplaced(Box::new(Misplaced { dependent, owner }))
    }

    #[test]
    fn owner_in_another_namespace_does_not_count() {
        let mut graph = Graph::default();
        graph.observe(elsewhere("o"), &owned(&[], None, false));
        let work = graph.observe(identity("a"), &owned(&["o"], None, false));
        assert_eq!(work, [delete("a"), misplaced(identity("a"))]);
        // The same when the owner is seen after its dependent.
        let mut graph = Graph::default();
        graph.observe(identity("a"), &owned(&["o"], None, false));
        let work = graph.observe(elsewhere("o"), &owned(&[], None, false));
        assert_eq!(work, [misplaced(identity("a")), delete("a")]);
    }

    #[test]
    fn dependent_that_disagrees_with_another_is_looked_at() {
        let mut graph = Graph::default();
        graph.observe(identity("good"), &owned(&["o"], None, false));
        let work = graph.observe(elsewhere("bad"), &owned(&["o"], None, false));
        assert_eq!(sorted(work), [delete("bad"), delete("o")]);
        assert_eq!(graph.observe(identity("o"), &owned(&[], None, false)), []);
    }

    #[test]
    fn owner_without_a_namespace_does_not_concern_dependents_that_name_it_rightly() {
        let mut graph = Graph::default();
        graph.observe(identity("a"), &owned(&["o"], None, false));
        let cluster_wide = Identity { namespace: String::new(), ..identity("o") };
        assert_eq!(graph.observe(cluster_wide, &owned(&[], None, false)), []);
    }

    #[test]
    fn name_that_leads_nowhere_is_not_the_end_if_dependents_have_another() {
        let mut graph = Graph::default();
        graph.observe(elsewhere("bad"), &owned(&["o"], None, false));
        graph.observe(identity("good"), &owned(&["o"], None, false));
        assert_eq!(graph.not_found(&elsewhere("o")), (vec![delete("bad")], true));
        assert!(graph.is_absent(&elsewhere("o")) && !graph.is_absent(&identity("o")));
        assert_eq!(graph.node("o").map(|node| &node.identity), Some(&identity("o")));
        graph.forget("bad");
        assert_eq!(graph.not_found(&identity("o")), (vec![delete("good")], false));
    }

    #[test]
    fn object_that_a_cache_has_shown_is_not_gone_because_another_name_leads_nowhere() {
        let mut graph = Graph::default();
        graph.observe(elsewhere("bad"), &owned(&["o"], None, false));
        graph.observe(identity("o"), &owned(&["p"], None, false));
        assert_eq!(graph.not_found(&elsewhere("o")), (vec![delete("bad")], false));
        assert!(graph.node("o").is_some_and(|node| node.observed && !node.owners.is_empty()));
    }
}
