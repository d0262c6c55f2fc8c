//! The table of everything that is served. A resource is a row of [`api::registry`]; routes, discovery, storage keys
//! and caches follow from it.

pub mod conversion;
mod custom;
mod managed_custom;
pub mod managed_fields;
pub mod node_port;
pub mod policy_params;
pub mod resource;
pub mod service_allocator;
pub mod service_ip;
pub mod service_repair;
pub mod storage;
pub mod view;
pub mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::crd::{Definition, Version};
use api::names::{GroupVersionKind, GroupVersionResource};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
};
use parking_lot::{Mutex, RwLock};

use crate::cacher::{self, Cacher};
use crate::webhook::Clients;
use conversion::Converter;
use view::View;

pub use resource::{Custom, Deletion, Resource, Subresource};

type Path = (String, String, String);

/// All resources by group, version and plural. Resources may come and go at run time (custom ones).
#[derive(Default)]
pub struct Registry {
    inner: RwLock<Arc<Table>>,
    built_in: Table,
    storage_prefix: String,
    custom: Mutex<BTreeMap<String, Served>>,
}

/// A definition that is served.
struct Served {
    definition: Arc<Definition>,
    /// What it was made of.
    spec: CustomResourceDefinitionSpec,
    names: Option<CustomResourceDefinitionNames>,
    terminating: bool,
    cache: Arc<cacher::Resource>,
    converter: Option<Arc<Converter>>,
}

impl Served {
    /// How objects are seen in a version, where a webhook converts them.
    fn view(&self, version: &Arc<Version>, prefix: &str) -> Option<View> {
        let converter = Arc::clone(self.converter.as_ref()?);
        let number = self.definition.versions.iter().position(|own| own.gvk == version.gvk)?;
        let number = u32::try_from(number).ok()?;
        let spec = resource::custom_spec(prefix, self.definition.namespaced, &self.definition);
        Some(View::new(converter, Arc::clone(version), number, spec))
    }
}

/// One state of the registry.
#[derive(Clone, Default)]
pub struct Table {
    by_path: HashMap<Path, Arc<Resource>>,
    /// Groups in order of priority, with their versions in order of preference.
    pub groups: Vec<Group>,
}

/// A group with what is served of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Name; empty for the core group.
    pub name: String,
    /// Versions, the preferred one first.
    pub versions: Vec<String>,
    /// Whether all of it is custom.
    pub custom: bool,
}

impl Table {
    /// The resources of a group and version, sorted by name.
    #[must_use]
    pub fn resources(&self, group: &str, version: &str) -> Vec<&Arc<Resource>> {
        let ours = |r: &&Arc<Resource>| r.gvr.group == group && r.gvr.version == version;
        let mut found: Vec<_> = self.by_path.values().filter(ours).collect();
        found.sort_by(|a, b| a.gvr.resource.cmp(&b.gvr.resource));
        found
    }

    /// Other resources that are stored as the same objects, with their kinds: other versions, and other groups for
    /// events. A subresource must be among theirs.
    fn equivalents(
        &self,
        to: &GroupVersionResource,
        subresource: &str,
    ) -> Vec<(GroupVersionResource, GroupVersionKind)> {
        let path =
            |group: &str, version: &str| (group.to_owned(), version.to_owned(), to.resource.to_string());
        let Some(own) = self.by_path.get(&path(&to.group, &to.version)) else { return Vec::new() };
        let versions =
            self.groups.iter().flat_map(|group| group.versions.iter().map(|v| path(&group.name, v)));
        let others = versions
            .filter_map(|path| self.by_path.get(&path))
            .filter(|other| other.prefix == own.prefix && other.gvr != own.gvr);
        let kind = |other: &Arc<Resource>| match subresource {
            "" => Some(other.gvk.clone()),
            part => other.subresource(part).map(|part| part.kind.clone()),
        };
        others.filter_map(|other| Some((other.gvr.clone(), kind(other)?))).collect()
    }

    /// The resource whose objects are of a kind.
    fn of_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_path.values().find(|resource| resource.gvk == *kind)
    }

    /// A group by name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

impl Registry {
    /// The built-in resources, each with a running cache.
    #[must_use]
    pub fn built_in(cacher: &Cacher, storage_prefix: &str, event_ttl: Duration) -> Self {
        let mut caches: BTreeMap<String, Arc<cacher::Resource>> = BTreeMap::new();
        let mut table = Table::default();
        for row in api::registry::resources() {
            let mut resource = from_row(row, storage_prefix, event_ttl);
            if resource.has_verb("watch") {
                let make = || cacher.register(resource.cache_spec());
                let cache = caches.entry(resource.prefix.clone()).or_insert_with(make);
                resource.cache = Some(Arc::clone(cache));
            }
            table.insert(resource);
        }
        Self {
            inner: RwLock::new(Arc::new(table.clone())),
            built_in: table,
            storage_prefix: storage_prefix.to_owned(),
            custom: Mutex::default(),
        }
    }

    /// The present state.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.inner.read())
    }

    /// Whether the caches of all built-in resources have been loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        let mut caches = self.built_in.by_path.values().filter_map(|resource| resource.cache.as_ref());
        caches.all(|cache| cache.is_ready())
    }

    /// Whether any resource of a group is built in.
    #[must_use]
    pub fn has_built_in_group(&self, group: &str) -> bool {
        self.built_in.groups.iter().any(|known| known.name == group)
    }

    /// Whether any resource of a group and version is built in.
    #[must_use]
    pub fn has_built_in(&self, group: &str, version: &str) -> bool {
        let group = self.built_in.groups.iter().find(|known| known.name == group);
        group.is_some_and(|known| known.versions.iter().any(|own| own == version))
    }

    /// Whether a resource is built in, in any version.
    #[must_use]
    pub fn is_built_in(&self, group: &str, plural: &str) -> bool {
        self.built_in.by_path.keys().any(|(own, _, resource)| own == group && resource == plural)
    }

    /// Serves what a definition says, from now on and instead of what it said before. `clients` reach the webhook that
    /// converts its objects, if there is one.
    pub fn serve(&self, cacher: &Cacher, clients: &Clients, crd: &CustomResourceDefinition) {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let names = crd.status.as_ref().and_then(|status| status.accepted_names.clone());
        let terminating = crd.metadata.deletion_timestamp.is_some();
        if self.is_built_in(&crd.spec.group, &crd.spec.names.plural) {
            return;
        }
        let mut served = self.custom.lock();
        match served.get_mut(&name) {
            Some(known) if known.spec == crd.spec && known.names == names => {
                if known.terminating == terminating {
                    return;
                }
                known.terminating = terminating;
            }
            known => {
                let Some(definition) = Definition::new(crd).map(Arc::new) else { return };
                let prefix = self.custom_prefix(&definition);
                if known.is_some() {
                    // Objects are cached in the form that the schema gives them: watches begin anew.
                    cacher.unregister(&prefix);
                }
                let cache =
                    cacher.register(resource::custom_spec(&prefix, definition.namespaced, &definition));
                let spec = crd.spec.clone();
                let converter = Converter::of(&definition, clients).map(Arc::new);
                served.insert(name, Served { definition, spec, names, terminating, cache, converter });
            }
        }
        self.rebuild(&served);
    }

    /// Serves a definition no longer.
    pub fn forget(&self, cacher: &Cacher, name: &str) {
        let mut served = self.custom.lock();
        if let Some(gone) = served.remove(name) {
            cacher.unregister(&self.custom_prefix(&gone.definition));
            self.rebuild(&served);
        }
    }

    fn custom_prefix(&self, definition: &Definition) -> String {
        format!("{}/{}/{}/", self.storage_prefix, definition.group, definition.plural)
    }

    fn rebuild(&self, served: &BTreeMap<String, Served>) {
        let mut table = self.built_in.clone();
        let built_in = table.groups.len();
        for known in served.values() {
            for version in known.definition.versions.iter().filter(|version| version.served) {
                let prefix = self.custom_prefix(&known.definition);
                let view = known.view(version, &prefix).map(Arc::new);
                let mut resource = custom::resource(&known.definition, version, known.terminating, view);
                resource.prefix = prefix;
                resource.cache = Some(Arc::clone(&known.cache));
                table.insert(resource);
            }
        }
        table.groups[built_in..].sort_by(|a, b| a.name.cmp(&b.name));
        for group in &mut table.groups[built_in..] {
            group.custom = true;
            group.versions.sort_by(|a, b| api::crd::versions::compare(b, a));
        }
        *self.inner.write() = Arc::new(table);
    }

    /// Other resources that are stored as the same objects, with their kinds (upstream `EquivalentResourceMapper`).
    #[must_use]
    pub fn equivalents(
        &self,
        to: &GroupVersionResource,
        subresource: &str,
    ) -> Vec<(GroupVersionResource, GroupVersionKind)> {
        self.inner.read().equivalents(to, subresource)
    }

    /// The resource whose objects are of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: &GroupVersionKind) -> Option<Arc<Resource>> {
        self.inner.read().of_kind(kind).cloned()
    }

    /// A resource by its place in the URL.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Resource>> {
        // Three short strings: cheaper than what any request does next.
        let path = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.inner.read().by_path.get(&path).cloned()
    }
}

impl Table {
    fn insert(&mut self, resource: Resource) {
        let (group, version) = (resource.gvr.group.to_string(), resource.gvr.version.to_string());
        match self.groups.iter_mut().find(|known| known.name == group) {
            Some(known) if known.versions.contains(&version) => {}
            Some(known) => known.versions.push(version.clone()),
            None => self.groups.push(Group {
                name: group.clone(),
                versions: vec![version.clone()],
                custom: false,
            }),
        }
        self.by_path.insert((group, version, resource.gvr.resource.to_string()), Arc::new(resource));
    }
}

fn from_row(row: &api::registry::Resource, storage_prefix: &str, event_ttl: Duration) -> Resource {
    let owned = |list: &[&'static str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let gvk = row.gvk();
    let stored = api::registry::storage_version(row.group, row.plural);
    let stored_as = stored.map_or_else(|| gvk.clone(), |version| version.with_kind(row.kind));
    Resource {
        gvr: row.gvr(),
        singular: row.singular.to_owned(),
        namespaced: row.namespaced(),
        verbs: owned(row.verbs),
        short_names: owned(row.short_names),
        categories: owned(row.categories),
        subresources: row
            .subresources
            .iter()
            .map(|sub| Subresource {
                name: sub.name.to_owned(),
                kind: row.subresource_kind(sub),
                verbs: owned(sub.verbs),
            })
            .collect(),
        prefix: format!("{storage_prefix}/{}/", resource::storage_name(row.group, row.plural)),
        cache: None,
        deletion: match (row.group, row.plural) {
            ("", "pods") => Deletion::Graceful,
            ("", "namespaces") => Deletion::Namespace,
            ("apiextensions.k8s.io", "customresourcedefinitions") => Deletion::Definition,
            _ => Deletion::Plain,
        },
        ttl: (row.plural == "events").then_some(event_ttl),
        gvk,
        stored_as,
        custom: None,
    }
}
