//! What names an object, and what others call it: references to one owner need not agree about where it is.

use super::graph::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::BTreeSet;

/// Names an object of any type. Ordered as upstream orders the names of one owner: kinds first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Kind.
    pub kind: String,
    /// Group and version.
    pub api_version: String,
    /// Namespace; empty for none.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Identity {
    /// What an object in `namespace` calls its owner.
    pub fn of_owner(reference: &OwnerReference, namespace: &str) -> Self {
        Self {
            kind: reference.kind.clone(),
            api_version: reference.api_version.clone(),
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
            uid: reference.uid.clone(),
        }
    }

    /// Whether the reference calls it by this kind, version and name.
    pub fn is_called(&self, reference: &OwnerReference) -> bool {
        self.kind == reference.kind
            && self.api_version == reference.api_version
            && self.name == reference.name
    }

    /// How the dependent calls it: by this name, by another, or both.
    fn called_by(&self, dependent: &Node) -> (bool, bool) {
        if self.is_out_of_reach(&dependent.identity) {
            return (false, true);
        }
        let references = dependent.owners.iter().filter(|reference| reference.uid == self.uid);
        references.fold((false, false), |(right, wrong), reference| {
            let called = self.is_called(reference);
            (right || called, wrong || !called)
        })
    }

    /// Whether it is in a namespace that the other cannot refer to.
    pub fn is_out_of_reach(&self, other: &Self) -> bool {
        !self.namespace.is_empty() && self.namespace != other.namespace
    }

    /// The dependents that call it by this name, and those that call it by another; some do both.
    pub fn partition<'a>(&self, dependents: &[&'a Node]) -> (Vec<&'a Node>, Vec<&'a Node>) {
        let of = |pick: fn((bool, bool)) -> bool| {
            dependents.iter().copied().filter(|dependent| pick(self.called_by(dependent))).collect()
        };
        (of(|(right, _)| right), of(|(_, wrong)| wrong))
    }

    /// Another name that dependents have for it, once it is known that nothing has this one: the next in order, or the
    /// first (upstream `getAlternateOwnerIdentity`).
    pub fn alternate(&self, dependents: &[&Node]) -> Option<Self> {
        let mut others = BTreeSet::new();
        for dependent in dependents {
            for reference in dependent.owners.iter().filter(|reference| reference.uid == self.uid) {
                let mut other = Self::of_owner(reference, &dependent.identity.namespace);
                let same_kind = other.kind == self.kind && other.api_version == self.api_version;
                if self.namespace.is_empty() && same_kind {
                    // This kind is known to have no namespaces.
                    other.namespace.clear();
                }
                others.insert(other);
            }
        }
        others.remove(self);
        others.range(self..).next().or_else(|| others.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `version Kind namespace name`; `-` for no namespace.
    fn id(text: &str) -> Identity {
        let words: Vec<_> = text.split(' ').collect();
        Identity {
            api_version: words[0].into(),
            kind: words[1].into(),
            namespace: words[2].replace('-', ""),
            name: words[3].into(),
            uid: "owner".into(),
        }
    }

    /// A child in a namespace with these owners.
    fn child(namespace: &str, owners: &[&str]) -> Node {
        let reference = |text: &&str| {
            let owner = id(text);
            OwnerReference {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
                ..Default::default()
            }
        };
        let identity = Identity { namespace: namespace.replace('-', ""), ..Identity::default() };
        Node { identity, owners: owners.iter().map(reference).collect(), ..Node::default() }
    }

    #[test]
    fn other_names_are_tried_in_turn() {
        let versions = ["v1 K n name", "v2 K n name", "v3 K n name", "v4 K n name", "v5 K n name"];
        let cluster = versions.map(|version| version.replace(" n ", " - "));
        let cluster: Vec<_> = cluster.iter().map(String::as_str).collect();
        for (children, absent, expected) in [
            (vec![child("n", &["v1 P n p"]), child("n", &["x P n p"])], "v1 P n p", Some("x P n p")),
            (vec![child("n", &["v1 P n p"]), child("n", &["v1 x n p"])], "v1 P n p", Some("v1 x n p")),
            (vec![child("n", &["v1 P n p"]), child("m", &["v1 P m p"])], "v1 P n p", Some("v1 P m p")),
            (vec![child("n", &["v1 P n p"]), child("n", &["v1 P n x"])], "v1 P n p", Some("v1 P n x")),
            // Whether another version or kind has namespaces is not known.
            (vec![child("n", &["v1 C - p"]), child("n", &["x C - p"])], "v1 C - p", Some("x C n p")),
            (vec![child("n", &["v1 C - p"]), child("n", &["v1 x - p"])], "v1 C - p", Some("v1 x n p")),
            (vec![child("n", &["v1 C - p"]), child("m", &["v1 C - p"])], "v1 C - p", None),
            (vec![child("n", &["v1 C - p"]), child("n", &["v1 C - x"])], "v1 C - p", Some("v1 C - x")),
            (vec![child("n", &versions)], versions[4], Some(versions[0])),
            (vec![child("n", &versions)], versions[3], Some(versions[4])),
            (vec![child("-", &cluster)], cluster[4], Some(cluster[0])),
            (vec![child("-", &cluster)], cluster[3], Some(cluster[4])),
            (vec![child("n", &["v1 C - p", "v1 C - p"])], "v1 C - p", None),
            (vec![child("-", &["v1 C - p", "v1 x - p", "v1 x - p"])], "v1 C - p", Some("v1 x - p")),
        ] {
            let children: Vec<_> = children.iter().collect();
            assert_eq!(id(absent).alternate(&children), expected.map(id), "{children:?}");
        }
        let mut stranger = child("n", &["v1 C - p", "v1 P n name"]);
        stranger.owners[1].uid = "another".into();
        assert_eq!(id("v1 C - p").alternate(&[&stranger]), None);
    }

    #[test]
    fn dependents_agree_or_not() {
        let good = child("n", &["v1 P n p"]);
        let elsewhere = child("m", &["v1 P m p"]);
        let both = child("n", &["v1 P n p", "v2 P n p"]);
        let count = |owner: &str| {
            let (right, wrong) = id(owner).partition(&[&good, &elsewhere, &both]);
            (right.len(), wrong.len())
        };
        assert_eq!(count("v1 P n p"), (2, 2));
        assert_eq!(count("v1 P m p"), (1, 2));
        assert_eq!(count("v1 P - p"), (3, 1), "an owner without a namespace may be anybody's");
    }
}
