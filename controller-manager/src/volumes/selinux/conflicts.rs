//! The volumes that pods use, and which pods cannot use one at the same time. Pure, but for the gauge that shows it.

use super::plan::{Source, Usage, labels_conflict};
use client::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};

/// In what two pods differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// How labels are put on the volume.
    ChangePolicy,
    /// The labels.
    Label,
}

impl Property {
    fn name(self) -> &'static str {
        match self {
            Self::ChangePolicy => "SELinuxChangePolicy",
            Self::Label => "SELinuxLabel",
        }
    }

    /// The reason of events.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ChangePolicy => "SELinuxChangePolicyConflict",
            Self::Label => "SELinuxLabelConflict",
        }
    }
}

/// A pod that conflicts with another, as it is said on the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// In what.
    pub property: Property,
    /// Whom it is said on.
    pub pod: ObjectKey,
    /// What it has.
    pub value: String,
    /// The other one.
    pub other: ObjectKey,
    /// What that has.
    pub other_value: String,
}

impl Conflict {
    fn reversed(&self) -> Self {
        Self {
            property: self.property,
            pod: self.other.clone(),
            value: self.other_value.clone(),
            other: self.pod.clone(),
            other_value: self.value.clone(),
        }
    }

    /// What is said. Names of other namespaces are nobody's business; that a space is missing there is upstream's
    /// doing (Conflict.EventMessage).
    pub fn message(&self) -> String {
        const END: &str = "If both pods land on the same node, only one of them may access the volume.";
        let (name, value) = (self.property.name(), &self.value);
        if self.pod.namespace == self.other.namespace {
            let (other, theirs) = (&self.other.name, &self.other_value);
            return format!(
                "{name} \"{value}\" conflicts with pod {other} that uses the same volume as this pod with {name} \
                 \"{theirs}\". {END}"
            );
        }
        format!(
            "{name}\"{value}\" conflicts with another pod that uses the same volume as this pod with a different \
             {name}. {END}"
        )
    }

    /// Shows whether it is there.
    fn show(&self, there: bool) {
        metrics::gauge!(
            "selinux_warning_controller_selinux_volume_conflict",
            "property" => self.property.name(),
            "pod1_namespace" => self.pod.namespace.clone(),
            "pod1_name" => self.pod.name.clone(),
            "pod1_value" => self.value.clone(),
            "pod2_namespace" => self.other.namespace.clone(),
            "pod2_name" => self.other.name.clone(),
            "pod2_value" => self.other_value.clone(),
        )
        .set(if there { 1.0 } else { 0.0 });
    }
}

#[derive(Default)]
struct Volume {
    driver: String,
    pods: BTreeMap<ObjectKey, Usage>,
    conflicts: BTreeSet<Conflict>,
}

impl Volume {
    /// Takes back what was found of a pod.
    fn settle(&mut self, pod: &ObjectKey) {
        self.conflicts.retain(|conflict| {
            let stays = conflict.pod != *pod && conflict.other != *pod;
            if !stays {
                conflict.show(false);
            }
            stays
        });
    }
}

/// All volumes that pods use.
#[derive(Default)]
pub struct Conflicts {
    volumes: BTreeMap<String, Volume>,
}

impl Conflicts {
    /// A pod uses a volume; the conflicts that come of it, as they are said on either pod. None if it was known.
    pub fn add(&mut self, source: &Source, pod: &ObjectKey, usage: Usage) -> Vec<Conflict> {
        let volume = self.volumes.entry(source.name.clone()).or_default();
        volume.driver.clone_from(&source.driver);
        if volume.pods.get(pod) == Some(&usage) {
            return Vec::new();
        }
        volume.settle(pod);
        let mut found = Vec::new();
        for (other, theirs) in volume.pods.iter().filter(|(other, _)| *other != pod) {
            let mut differ = |property, value: &str, other_value: &str| {
                let conflict = Conflict {
                    property,
                    pod: pod.clone(),
                    value: value.to_owned(),
                    other: other.clone(),
                    other_value: other_value.to_owned(),
                };
                found.push(conflict.reversed());
                found.push(conflict);
            };
            if usage.policy != theirs.policy {
                differ(Property::ChangePolicy, &usage.policy, &theirs.policy);
            }
            if labels_conflict(&usage.label, &theirs.label) {
                differ(Property::Label, &usage.label, &theirs.label);
            }
        }
        found.iter().for_each(|conflict| conflict.show(true));
        volume.conflicts.extend(found.iter().cloned());
        volume.pods.insert(pod.clone(), usage);
        found
    }

    /// A pod uses nothing any more.
    pub fn forget(&mut self, pod: &ObjectKey) {
        self.volumes.retain(|_, volume| {
            if volume.pods.remove(pod).is_some() {
                volume.settle(pod);
            }
            !volume.pods.is_empty()
        });
    }

    /// The pods that use volumes of a driver.
    pub fn users_of_driver(&self, driver: &str) -> Vec<ObjectKey> {
        let of_driver = self.volumes.values().filter(|volume| volume.driver == driver);
        of_driver.flat_map(|volume| volume.pods.keys().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source { name: name.into(), driver: "d".into(), mounts_labelled: true }
    }

    fn usage(label: &str, policy: &str) -> Usage {
        Usage { label: label.into(), policy: policy.into() }
    }

    fn key(name: &str) -> ObjectKey {
        let (namespace, name) = name.split_once('/').unwrap_or(("ns", name));
        ObjectKey::new(namespace, name)
    }

    fn text(found: &[Conflict]) -> Vec<String> {
        let mut lines: Vec<_> = found
            .iter()
            .map(|c| {
                format!("{} {}={} {}={}", c.property.name(), c.pod.name, c.value, c.other.name, c.other_value)
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn both_pods_hear_of_a_conflict_once() {
        let mut all = Conflicts::default();
        assert!(all.add(&source("v"), &key("a"), usage(":::s0:c1", "MountOption")).is_empty());
        assert!(
            all.add(&source("v"), &key("b"), usage("::t:s0:c1", "MountOption")).is_empty(),
            "no conflict"
        );
        let found = all.add(&source("v"), &key("c"), usage("", "Recursive"));
        assert_eq!(
            text(&found),
            [
                "SELinuxChangePolicy a=MountOption c=Recursive",
                "SELinuxChangePolicy b=MountOption c=Recursive",
                "SELinuxChangePolicy c=Recursive a=MountOption",
                "SELinuxChangePolicy c=Recursive b=MountOption",
                "SELinuxLabel a=:::s0:c1 c=",
                "SELinuxLabel b=::t:s0:c1 c=",
                "SELinuxLabel c= a=:::s0:c1",
                "SELinuxLabel c= b=::t:s0:c1",
            ]
        );
        assert!(all.add(&source("v"), &key("c"), usage("", "Recursive")).is_empty(), "that was said");
        assert!(all.add(&source("other"), &key("d"), usage(":::s9", "MountOption")).is_empty());
        assert_eq!(all.users_of_driver("d"), [key("d"), key("a"), key("b"), key("c")]);
        assert!(all.users_of_driver("e").is_empty());
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut all = Conflicts::default();
        all.add(&source("v"), &key("a"), usage(":::s0:c1", "MountOption"));
        assert_eq!(all.add(&source("v"), &key("b"), usage(":::s0:c2", "MountOption")).len(), 2);
        assert!(all.add(&source("v"), &key("b"), usage(":::s0:c1", "MountOption")).is_empty(), "it gave in");
        assert!(all.volumes["v"].conflicts.is_empty());
        assert_eq!(all.add(&source("v"), &key("b"), usage(":::s0:c3", "MountOption")).len(), 2);
        all.forget(&key("a"));
        assert!(all.volumes["v"].conflicts.is_empty());
        all.forget(&key("b"));
        assert!(all.volumes.is_empty());
    }

    #[test]
    fn messages_are_upstreams() {
        let conflict = |other: &str| Conflict {
            property: Property::Label,
            pod: key("ns/a"),
            value: "x".into(),
            other: key(other),
            other_value: "y".into(),
        };
        let end = "If both pods land on the same node, only one of them may access the volume.";
        assert_eq!(
            conflict("ns/b").message(),
            format!(
                "SELinuxLabel \"x\" conflicts with pod b that uses the same volume as this pod with SELinuxLabel \
                 \"y\". {end}"
            )
        );
        assert_eq!(
            conflict("other/b").message(),
            format!(
                "SELinuxLabel\"x\" conflicts with another pod that uses the same volume as this pod with a different \
                 SELinuxLabel. {end}"
            )
        );
    }
}
