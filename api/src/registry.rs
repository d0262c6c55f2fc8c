//! The built-in resources: one row each, from `data/resources.tsv`, in the order of upstream's discovery.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::names::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
use crate::schema::{self, TypeRef};

include!(concat!(env!("OUT_DIR"), "/registry.rs"));

/// Whether objects live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They do not.
    Cluster,
}

/// A resource that the API serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// The plural, as in the URL.
    pub plural: &'static str,
    /// The singular.
    pub singular: &'static str,
    /// Kind of its objects.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What can be done, sorted.
    pub verbs: &'static [&'static str],
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Subresources, sorted by name.
    pub subresources: &'static [Subresource],
}

/// Something below an object: `status`, `scale`, `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last part of the URL.
    pub name: &'static str,
    /// Kind of what it takes and gives; its group may differ (see [`Resource::subresource_kind`]).
    pub kind: &'static str,
    /// What can be done, sorted.
    pub verbs: &'static [&'static str],
}

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name; empty for the core group.
    pub name: &'static str,
    /// Versions in order of preference.
    pub versions: Vec<&'static str>,
}

impl Resource {
    /// Group and version.
    #[must_use]
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group, self.version)
    }

    /// Group, version and kind of its objects.
    #[must_use]
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    /// Group, version and plural.
    #[must_use]
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group, self.version, self.plural)
    }

    /// Group and plural.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    /// Kind of lists of its objects.
    #[must_use]
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Whether objects live in namespaces.
    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether `verb` is served.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// The type of its objects.
    #[must_use]
    pub fn ty(&self) -> Option<TypeRef<'static>> {
        schema::type_for(&self.gvk())
    }

    /// The subresource called `name`.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Group, version and kind of what a subresource takes and gives.
    #[must_use]
    pub fn subresource_kind(&self, subresource: &Subresource) -> GroupVersionKind {
        let (group, version) = match subresource.kind {
            "Scale" => ("autoscaling", "v1"),
            "Eviction" => ("policy", "v1"),
            "TokenRequest" => ("authentication.k8s.io", "v1"),
            _ => (self.group, self.version),
        };
        GroupVersionKind::new(group, version, subresource.kind)
    }
}

struct Index {
    by_resource: HashMap<(&'static str, &'static str, &'static str), usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
    groups: Vec<Group>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut groups: Vec<Group> = Vec::new();
    for row in &RESOURCES {
        let at = groups.iter().position(|g| g.name == row.group).unwrap_or_else(|| {
            groups.push(Group { name: row.group, versions: vec![] });
            groups.len() - 1
        });
        if !groups[at].versions.contains(&row.version) {
            groups[at].versions.push(row.version);
        }
    }
    let rows = || RESOURCES.iter().enumerate();
    Index {
        by_resource: rows().map(|(i, r)| ((r.group, r.version, r.plural), i)).collect(),
        // Several resources may have one kind; the first is the one that stores it.
        by_kind: rows().rev().map(|(i, r)| ((r.group, r.version, r.kind), i)).collect(),
        groups,
    }
});

/// All resources, groups and versions in discovery order.
#[must_use]
pub fn resources() -> &'static [Resource] {
    &RESOURCES
}

/// The resource in this group and version with this plural.
#[must_use]
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    lookup(&INDEX.by_resource, group, version, plural)
}

/// The resource whose objects are of this kind.
#[must_use]
pub fn by_kind(gvk: &GroupVersionKind) -> Option<&'static Resource> {
    lookup(&INDEX.by_kind, &gvk.group, &gvk.version, &gvk.kind)
}

fn lookup(
    map: &'static HashMap<(&'static str, &'static str, &'static str), usize>,
    a: &str,
    b: &str,
    c: &str,
) -> Option<&'static Resource> {
    // A map keyed by 'static tuples is asked by shorter-lived ones through covariance.
    fn shorten<'a>(
        map: &'a HashMap<(&'static str, &'static str, &'static str), usize>,
    ) -> &'a HashMap<(&'a str, &'a str, &'a str), usize> {
        map
    }
    shorten(map).get(&(a, b, c)).map(|i| &RESOURCES[*i])
}

/// All groups in discovery order.
#[must_use]
pub fn groups() -> &'static [Group] {
    &INDEX.groups
}

/// The group called `name`.
#[must_use]
pub fn group(name: &str) -> Option<&'static Group> {
    INDEX.groups.iter().find(|group| group.name == name)
}

/// The resources of one group and version, in discovery order.
pub fn in_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |r| r.group == group && r.version == version)
}

/// Whether any resource is served under this group and version.
#[must_use]
pub fn serves(group: &str, version: &str) -> bool {
    in_version(group, version).next().is_some()
}

/// The group and version in which objects of a resource are stored.
#[must_use]
pub fn storage_version(group: &str, plural: &str) -> Option<GroupVersion> {
    match (group, plural) {
        // Objects that two groups or versions share have one home.
        ("autoscaling", "horizontalpodautoscalers") => Some(GroupVersion::new("autoscaling", "v2")),
        ("" | "events.k8s.io", "events") => Some(GroupVersion::new("", "v1")),
        _ => RESOURCES.iter().find(|r| r.group == group && r.plural == plural).map(Resource::group_version),
    }
}

/// The group and plural under which objects of a resource are stored.
#[must_use]
pub fn storage_resource(group: &str, plural: &str) -> Option<GroupResource> {
    let row = RESOURCES.iter().find(|r| r.group == group && r.plural == plural)?;
    Some(GroupResource::new(storage_version(group, plural)?.group, row.plural))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_a_type_and_a_list_type() {
        for row in resources() {
            assert!(row.ty().is_some(), "{:?}", row.gvk());
            if row.has_verb("list") {
                let list = GroupVersionKind::new(row.group, row.version, row.list_kind());
                assert!(schema::type_for(&list).is_some(), "{list}");
            }
            for sub in row.subresources {
                let kind = row.subresource_kind(sub);
                assert!(schema::type_for(&kind).is_some(), "{kind} of {}/{}", row.plural, sub.name);
            }
        }
    }

    #[test]
    fn lookups_find_the_same_row() {
        for row in resources() {
            assert_eq!(by_resource(row.group, row.version, row.plural), Some(row));
            assert_eq!(by_kind(&row.gvk()).map(|r| r.kind), Some(row.kind));
        }
        assert_eq!(by_resource("", "v1", "gadgets"), None);
        assert_eq!(group("autoscaling").map(|g| g.versions.as_slice()), Some(["v2", "v1"].as_slice()));
        assert_eq!(groups().first().map(|g| g.name), Some(""));
    }

    #[test]
    fn shared_objects_are_stored_once() {
        assert_eq!(
            storage_version("autoscaling", "horizontalpodautoscalers"),
            Some(GroupVersion::new("autoscaling", "v2"))
        );
        assert_eq!(storage_resource("events.k8s.io", "events"), Some(GroupResource::new("", "events")));
        assert_eq!(storage_version("apps", "deployments"), Some(GroupVersion::new("apps", "v1")));
    }
}
