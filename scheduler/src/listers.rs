//! Reading objects that plugins look up, wherever they are kept.

use std::sync::Arc;

use api::selector::LabelSelector;
use client::{Informer, Object, ObjectKey, SharedInformerFactory};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, Service};

use crate::pod_info::{labels, namespace};

type Get<K> = dyn Fn(&ObjectKey) -> Option<Arc<K>> + Send + Sync;
type List<K> = dyn Fn(Option<&str>) -> Vec<Arc<K>> + Send + Sync;

/// Objects of one type.
pub struct Lister<K> {
    get: Arc<Get<K>>,
    list: Arc<List<K>>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self { get: self.get.clone(), list: self.list.clone() }
    }
}

impl<K> Default for Lister<K> {
    fn default() -> Self {
        Self { get: Arc::new(|_| None), list: Arc::new(|_| Vec::new()) }
    }
}

impl<K: Object> From<Informer<K>> for Lister<K> {
    fn from(informer: Informer<K>) -> Self {
        let other = informer.clone();
        Self {
            get: Arc::new(move |key| informer.store().get(key)),
            list: Arc::new(move |namespace| match namespace {
                Some(namespace) => other.store().list_namespace(namespace),
                None => other.store().list(),
            }),
        }
    }
}

impl<K: Object> From<Vec<K>> for Lister<K> {
    fn from(objects: Vec<K>) -> Self {
        let all: Vec<_> = objects.into_iter().map(Arc::new).collect();
        let of = all.clone();
        Self {
            get: Arc::new(move |key| all.iter().find(|object| ObjectKey::of(&***object) == *key).cloned()),
            list: Arc::new(move |namespace| {
                let here =
                    |object: &&Arc<K>| namespace.is_none_or(|n| ObjectKey::of(&***object).namespace == n);
                of.iter().filter(here).cloned().collect()
            }),
        }
    }
}

impl<K> Lister<K> {
    /// One object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        (self.get)(key)
    }

    /// All of a namespace.
    #[must_use]
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        (self.list)(Some(namespace))
    }

    /// All there are.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        (self.list)(None)
    }
}

/// What may select a pod.
#[derive(Clone, Default)]
pub struct Listers {
    /// Services.
    pub services: Lister<Service>,
    /// Replication controllers.
    pub replication_controllers: Lister<ReplicationController>,
    /// Replica sets.
    pub replica_sets: Lister<ReplicaSet>,
    /// Stateful sets.
    pub stateful_sets: Lister<StatefulSet>,
}

impl Listers {
    /// From informers.
    #[must_use]
    pub fn new(factory: &SharedInformerFactory) -> Self {
        Self {
            services: factory.informer().into(),
            replication_controllers: factory.informer().into(),
            replica_sets: factory.informer().into(),
            stateful_sets: factory.informer().into(),
        }
    }

    /// What services and the pod's controller select it by, all together (upstream `DefaultSelector`); a selector
    /// that is empty if nothing selects the pod.
    #[must_use]
    pub fn selector_of(&self, pod: &Pod) -> LabelSelector {
        let mut requirements = Vec::new();
        for service in self.services.list(namespace(pod)) {
            let Some(set) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { continue };
            let selector = LabelSelector::from_set(set);
            if selector.matches(labels(pod)) {
                requirements.extend(selector.requirements().iter().cloned());
            }
        }
        if let Some(selector) = self.selector_of_controller(pod) {
            requirements.extend(selector.requirements().iter().cloned());
        }
        let mut distinct = Vec::with_capacity(requirements.len());
        for requirement in requirements {
            if !distinct.contains(&requirement) {
                distinct.push(requirement);
            }
        }
        LabelSelector::from_requirements(distinct)
    }

    fn selector_of_controller(&self, pod: &Pod) -> Option<LabelSelector> {
        let owners = pod.metadata.owner_references.as_ref()?;
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        let key = ObjectKey::new(namespace(pod), &owner.name);
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                let controller = self.replication_controllers.get(&key)?;
                let selector = controller.spec.as_ref()?.selector.clone()?;
                Some(LabelSelector::from_set(&selector))
            }
            ("apps/v1", "ReplicaSet") => {
                let set = self.replica_sets.get(&key)?;
                LabelSelector::from_meta(Some(&set.spec.as_ref()?.selector)).ok()
            }
            ("apps/v1", "StatefulSet") => {
                let set = self.stateful_sets.get(&key)?;
                LabelSelector::from_meta(Some(&set.spec.as_ref()?.selector)).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn services_and_the_controller_say_which_pods_belong_together() {
        let meta = |name: &str| json!({"name": name, "namespace": "ns"});
        let service = |name: &str, selector: Value| -> Service {
            read(json!({"metadata": meta(name), "spec": {"selector": selector}}))
        };
        let set: ReplicaSet =
            read(json!({"metadata": meta("rs"), "spec": {"selector": {"matchLabels": {"hash": "1"}}}}));
        let listers = Listers {
            services: vec![service("a", json!({"app": "web"})), service("b", json!({"app": "db"}))].into(),
            replica_sets: vec![set].into(),
            ..Listers::default()
        };
        let pod = |owner: &str| -> Pod {
            let owner = json!([{"apiVersion": "apps/v1", "kind": owner, "name": "rs", "uid": "", "controller": true}]);
            read(
                json!({"metadata": {"namespace": "ns", "labels": {"app": "web", "hash": "1"}, "ownerReferences": owner}}),
            )
        };
        let text = |pod: &Pod| {
            let selector = listers.selector_of(pod);
            selector.requirements().iter().map(|r| r.key().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text(&pod("ReplicaSet")), ["app", "hash"]);
        assert_eq!(text(&pod("Job")), ["app"]);
        assert!(listers.selector_of(&Pod::default()).is_empty());
    }
}
