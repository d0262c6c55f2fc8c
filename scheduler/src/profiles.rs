//! The profiles of one scheduler: a name that pods ask for, and the plugins for those pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::framework::{ClusterEvent, Framework, Interest};

/// All profiles by name.
#[derive(Default)]
pub struct Profiles {
    frameworks: BTreeMap<String, Arc<Framework>>,
    /// What the plugins of all profiles ask for.
    interests: Vec<(&'static str, Vec<Interest>)>,
    has_extenders: bool,
}

impl Profiles {
    /// These profiles. Refusals by extenders, if there are any, may be resolved by any event.
    #[must_use]
    pub fn new(frameworks: impl IntoIterator<Item = Framework>, has_extenders: bool) -> Self {
        let frameworks: BTreeMap<_, _> =
            frameworks.into_iter().map(|f| (f.scheduler_name.clone(), Arc::new(f))).collect();
        let mut interests: Vec<(&'static str, Vec<Interest>)> = Vec::new();
        for plugin in frameworks.values().flat_map(|framework| &framework.plugins) {
            if !interests.iter().any(|(name, _)| *name == plugin.name()) {
                interests.push((plugin.name(), plugin.events()));
            }
        }
        Self { frameworks, interests, has_extenders }
    }

    /// The profile that a pod asks for; none if it is not one of ours.
    #[must_use]
    pub fn of(&self, pod: &Pod) -> Option<&Arc<Framework>> {
        self.frameworks.get(wanted(pod))
    }

    /// All profiles.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Framework>> {
        self.frameworks.values()
    }

    /// The plugins that ask for an event.
    #[must_use]
    pub fn asked_for(&self, event: &ClusterEvent) -> Vec<&'static str> {
        let asks = self.interests.iter().filter(|(_, all)| all.iter().any(|i| event.is_asked_for(i)));
        asks.map(|(plugin, _)| *plugin).chain(self.has_extenders.then_some(crate::extender::NAME)).collect()
    }
}

/// The name of the scheduler that a pod asks for.
#[must_use]
pub fn wanted(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).filter(|name| !name.is_empty());
    name.unwrap_or("default-scheduler")
}
