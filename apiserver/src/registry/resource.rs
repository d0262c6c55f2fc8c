//! One resource in one version, as the server serves it: its names, its verbs, its storage and its strategy.

use std::sync::Arc;
use std::time::Duration;

use api::crd::{Definition, Version};
use api::names::{GroupResource, GroupVersionKind, GroupVersionResource};

use api::status::ApiError;
use serde_json::Value;

use super::view::{self, View};
use crate::cacher;

/// How an object of a resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// At once, unless finalizers hold it.
    #[default]
    Plain,
    /// Pods: marked first, gone when the kubelet says so.
    Graceful,
    /// Definitions of custom resources: marked, gone when their objects are.
    Definition,
    /// Namespaces: marked, emptied by the namespace controller, gone when `spec.finalizers` is empty.
    Namespace,
}

/// A subresource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name in the path, for example `status`.
    pub name: String,
    /// Kind of what is sent and answered.
    pub kind: GroupVersionKind,
    /// Verbs.
    pub verbs: Vec<String>,
}

/// What a custom resource is served by.
#[derive(Clone)]
pub struct Custom {
    /// The whole definition.
    pub definition: Arc<Definition>,
    /// The version served.
    pub version: Arc<Version>,
    /// Whether the definition is being deleted: nothing new is made then.
    pub terminating: bool,
    /// How cached objects are seen in this version, where a webhook converts them.
    pub view: Option<Arc<View>>,
}

impl Custom {
    /// An object in another version of its definition.
    async fn convert(&self, object: Value, to: &Version) -> Result<Value, ApiError> {
        // As upstream, which does not expect this to fail.
        let failed = |why: String| ApiError::new(500, "", why);
        match &self.view {
            Some(view) => {
                let converted = view.converter().convert(vec![object], to).await.map_err(failed)?;
                converted.into_iter().next().ok_or_else(|| failed("nothing was converted".to_owned()))
            }
            None => self.definition.convert(object, to).map_err(failed),
        }
    }
}

/// One resource in one version.
#[derive(Clone)]
pub struct Resource {
    /// Group, version and plural.
    pub gvr: GroupVersionResource,
    /// Group, version and kind of its objects.
    pub gvk: GroupVersionKind,
    /// Singular name.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of the resource itself.
    pub verbs: Vec<String>,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Kind that objects are stored as; another than `gvk` for a group that is served in several versions.
    pub stored_as: GroupVersionKind,
    /// What keys begin with: `/registry/pods/`.
    pub prefix: String,
    /// The cache; `None` for resources that store nothing (reviews).
    pub cache: Option<Arc<cacher::Resource>>,
    /// How objects are deleted.
    pub deletion: Deletion,
    /// How long objects live, if they end by themselves.
    pub ttl: Option<Duration>,
    /// The definition, if a custom resource is served.
    pub custom: Option<Custom>,
}

impl Resource {
    /// Group and plural.
    #[must_use]
    pub fn group_resource(&self) -> GroupResource {
        self.gvr.group_resource()
    }

    /// The kind that errors of validation name: upstream's internal one, and events are those of the core group.
    #[must_use]
    pub fn kind_in_errors(&self) -> GroupVersionKind {
        match &*self.gvk.group {
            "events.k8s.io" => GroupVersionKind::new("", "v1", self.gvk.kind.clone()),
            _ => self.gvk.clone(),
        }
    }

    /// The `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.gvk.group_version().to_string()
    }

    /// The `apiVersion` that objects are stored with.
    #[must_use]
    pub fn storage_version(&self) -> String {
        self.stored_as.group_version().to_string()
    }

    /// Kind of lists of its objects.
    #[must_use]
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.definition.list_kind.clone(),
            None => format!("{}List", self.gvk.kind),
        }
    }

    /// Whether the resource itself takes a verb.
    #[must_use]
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    /// A subresource by name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The key of an object in the store.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// What the JSON of every stored object begins with: kind and version, so that lists can leave them out.
    #[must_use]
    pub fn json_prefix(&self) -> String {
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
            self.stored_as.kind,
            self.stored_as.group_version()
        )
    }

    /// How the resource is cached.
    #[must_use]
    pub fn cache_spec(&self) -> cacher::ResourceSpec {
        if let Some(custom) = &self.custom {
            return custom_spec(&self.prefix, self.namespaced, &custom.definition);
        }
        let kind = self.stored_as.clone();
        let selectable = api::selector::extract(&kind, &serde_json::Value::Null).len() > 1;
        let fields = move |object: &serde_json::Value| -> Vec<(String, String)> {
            let all = api::selector::extract(&kind, object).into_iter();
            all.filter(|(name, _)| !name.starts_with("metadata.")).map(|(n, v)| (n.to_owned(), v)).collect()
        };
        cacher::ResourceSpec {
            prefix: self.prefix.clone(),
            namespaced: self.namespaced,
            fields: selectable.then(|| Arc::new(fields) as Arc<cacher::FieldsFn>),
            node_index: self.prefix.ends_with("/pods/"),
            decode: None,
        }
    }

    /// An object in the version it is served in.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub async fn to_served(&self, object: Value) -> Result<Value, ApiError> {
        match &self.custom {
            Some(custom) => custom.convert(object, &custom.version).await,
            None => crate::codec::convert(object, &self.stored_as, &self.gvk),
        }
    }

    /// What answers are made of (see [`crate::handlers::render`]): a custom object in the version it is served in, one
    /// of ours as it is stored.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub async fn to_internal(&self, object: Value) -> Result<Value, ApiError> {
        match &self.custom {
            Some(custom) => custom.convert(object, &custom.version).await,
            None => Ok(object),
        }
    }

    /// A custom object in the version it is stored in.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub async fn custom_to_stored(&self, custom: &Custom, object: Value) -> Result<Value, ApiError> {
        let storage = custom.definition.storage_version();
        let storage = storage.ok_or_else(|| ApiError::internal("there is no storage version"))?;
        custom.convert(object, storage).await
    }

    /// A cached object in the version it is served in. It has been converted before, if a webhook does that.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub fn shown(&self, object: Value) -> Result<Value, ApiError> {
        match &self.custom {
            Some(custom) => {
                custom.definition.convert(object, &custom.version).map_err(|why| ApiError::new(500, "", why))
            }
            None => crate::codec::convert(object, &self.stored_as, &self.gvk),
        }
    }

    /// How cached objects are seen, where a webhook converts them.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.custom.as_ref()?.view.as_deref()
    }

    /// Reads an object from the cache, in the version that is served.
    ///
    /// # Errors
    /// Those of the cache, and of conversion.
    pub async fn read(
        &self,
        cache: &cacher::Resource,
        at: cacher::ReadAt,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<cacher::CachedObject>>, cacher::Error> {
        view::one(self.view(), cache.get(at, namespace, name).await).await
    }

    /// Lists objects of the cache, in the version that is served.
    ///
    /// # Errors
    /// Those of the cache, and of conversion.
    pub async fn list(
        &self,
        cache: &cacher::Resource,
        options: cacher::ListOptions,
    ) -> Result<cacher::Page, cacher::Error> {
        match self.view() {
            Some(view) => view.list(cache, options).await,
            None => cache.list(options).await,
        }
    }

    /// A cached object as readers of this version see it.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub async fn seen(
        &self,
        object: Arc<cacher::CachedObject>,
    ) -> Result<Arc<cacher::CachedObject>, ApiError> {
        let Some(view) = self.view() else { return Ok(object) };
        let shown = view.show(vec![object]).await.map_err(|error| super::storage::cache_error(&error))?;
        shown.into_iter().next().ok_or_else(|| ApiError::internal("nothing was shown"))
    }

    /// The number of the served version among those of the definition; 0: objects are served as they are stored.
    #[must_use]
    pub fn served_form(&self) -> u32 {
        let Some(custom) = self.custom.as_ref().filter(|_| self.converts()) else {
            return u32::from(self.converts());
        };
        let mut versions = custom.definition.versions.iter();
        let index = versions.position(|version| version.gvk == custom.version.gvk).unwrap_or_default();
        u32::try_from(index + 1).unwrap_or(u32::MAX)
    }

    /// Whether cached objects have to be converted between the stored and the served version.
    #[must_use]
    pub fn converts(&self) -> bool {
        self.stored_as != self.gvk && self.view().is_none()
    }
}

/// How custom objects are cached: in the version they are stored in now (each in its own, where a webhook converts), in
/// the form that their schema gives them.
pub(super) fn custom_spec(
    prefix: &str,
    namespaced: bool,
    definition: &Arc<Definition>,
) -> cacher::ResourceSpec {
    let (reader, selector) = (Arc::clone(definition), Arc::clone(definition));
    let decode = move |_: &str, bytes: bytes::Bytes| {
        let stored = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let object = reader.from_storage(stored)?;
        let object = if reader.webhook.is_some() { object } else { reader.to_storage(object)? };
        Ok(super::storage::encode(&object))
    };
    let fields = move |object: &Value| selector.selectable_values(object);
    cacher::ResourceSpec {
        prefix: prefix.to_owned(),
        namespaced,
        fields: definition.has_selectable().then(|| Arc::new(fields) as Arc<cacher::FieldsFn>),
        node_index: false,
        decode: Some(Arc::new(decode)),
    }
}

/// The last parts of storage prefixes that are not the plural (upstream `SpecialDefaultResourcePrefixes`, and groups
/// whose keys carry the group).
#[must_use]
pub fn storage_name(group: &str, resource: &str) -> String {
    match (group, resource) {
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => format!("{group}/{resource}"),
        _ => resource.to_owned(),
    }
}
