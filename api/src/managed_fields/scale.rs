//! Owners of `replicas` between a workload and its `scale` (upstream `managedfields/scalehandler.go`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::entries::{Invalid, Managed};
use crate::structured::{Path, Set, Versioned};

const SCALE_VERSION: &str = "autoscaling/v1";

fn replicas_in_scale() -> Path {
    Path::of_fields(&["spec", "replicas"])
}

fn set_of(path: &Path) -> Set {
    let mut set = Set::default();
    set.insert(&path.0);
    set
}

/// Where `replicas` is in each version of a workload; `None` where a version has none.
pub type Mappings = BTreeMap<String, Option<Path>>;

/// The entries of a workload, seen from its scale.
#[derive(Clone, Debug)]
pub struct ScaleHandler<'a> {
    parent: Managed,
    version: &'a str,
    mappings: &'a Mappings,
}

impl<'a> ScaleHandler<'a> {
    /// For a workload, in a request of a version.
    ///
    /// # Errors
    /// When its entries are malformed.
    pub fn new(workload: &Value, version: &'a str, mappings: &'a Mappings) -> Result<Self, Invalid> {
        Ok(Self { parent: Managed::of(workload)?, version, mappings })
    }

    /// The entries that the scale has.
    #[must_use]
    pub fn to_subresource(&self) -> Managed {
        let mut out = Managed::default();
        for (id, owned) in &self.parent.fields {
            let Some(Some(path)) = self.mappings.get(&owned.version) else { continue };
            if !owned.set.contains(&path.0) {
                continue;
            }
            let set = set_of(&replicas_in_scale());
            out.fields.insert(id.clone(), Versioned { set, version: SCALE_VERSION.to_owned(), ..*owned });
            if let Some(time) = self.parent.times.get(id) {
                out.times.insert(id.clone(), time.clone());
            }
        }
        out
    }

    /// The entries of the workload after its scale has these.
    #[must_use]
    pub fn to_parent(&self, mut scale: Managed) -> Managed {
        let mut out = Managed::default();
        for (id, owned) in &self.parent.fields {
            // Entries of versions that are no more are dropped.
            let Some(path) = self.mappings.get(&owned.version) else { continue };
            let mut set = owned.set.clone();
            if let Some(path) = path.as_ref().filter(|path| owned.set.contains(&path.0))
                && scale.fields.remove(id).is_none()
            {
                set = set.difference(&set_of(path));
            }
            if !set.is_empty() {
                out.fields.insert(id.clone(), Versioned { set, version: owned.version.clone(), ..*owned });
            }
        }
        let own_path = self.mappings.get(self.version).cloned().flatten();
        for (id, owned) in scale.fields {
            if !owned.set.contains(&replicas_in_scale().0) {
                continue;
            }
            let set = own_path.as_ref().map(set_of).unwrap_or_default();
            out.fields.insert(id, Versioned { set, version: self.version.to_owned(), ..owned });
        }
        // As upstream: entries that are new on this way have no time.
        let known = |id: &_| self.parent.times.get(id).cloned();
        out.times = out.fields.keys().filter_map(|id| Some((id.clone(), known(id)?))).collect();
        out
    }
}
