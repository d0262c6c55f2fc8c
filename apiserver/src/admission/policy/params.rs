//! The parameters of a policy (upstream `CollectParams`), from the caches of the resources that they are.

use std::sync::Arc;

use api::selector::LabelSelector;
use k8s_openapi::api::admissionregistration::v1::ParamRef;
use serde_json::Value;

use super::source::Params;
use crate::cacher::{CachedObject, Filter, ListOptions, ReadAt};
use crate::registry::{Registry, Resource};

const NOT_FOUND: &str = "no params found for policy binding with `Deny` parameterNotFoundAction";

/// The resource that parameters are of.
///
/// # Errors
/// When there is none.
pub(super) fn resource(registry: &Registry, params: &Params) -> Result<Arc<Resource>, String> {
    let found = params.kind.as_ref().and_then(|kind| registry.of_kind(kind));
    found.filter(|resource| resource.cache.is_some()).ok_or_else(|| {
        let kind = params.kind.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("failed to find resource referenced by paramKind: '{kind}'")
    })
}

/// The parameters that a binding gives for a request in `namespace`. Without any to give, there is one: null.
///
/// # Errors
/// When there are to be some, and are not, or cannot be had.
pub(super) async fn collect(
    known: Option<(&Params, &Resource)>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some((params, resource)), Some(reference)) = (known, reference) else {
        return Ok(vec![Value::Null]);
    };
    let namespace = place(resource.namespaced, reference, namespace)?;
    let found = match (reference.name.as_deref().filter(|name| !name.is_empty()), &reference.selector) {
        (Some(_), Some(_)) => {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
        }
        (Some(name), None) => one(params, resource, namespace, name).await?,
        (None, Some(selector)) => {
            several(params, resource, namespace, LabelSelector::from_meta(Some(selector))?).await?
        }
        (None, None) => return Err("one of name or selector must be provided".to_owned()),
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err(NOT_FOUND.to_owned());
    }
    found.iter().map(|object| served(resource, object)).collect()
}

/// The namespace to look in; empty for resources without.
fn place<'n>(namespaced: bool, reference: &'n ParamRef, namespace: &'n str) -> Result<&'n str, String> {
    let given = reference.namespace.as_deref().unwrap_or_default();
    match (namespaced, given, namespace) {
        (false, "", _) => Ok(""),
        (false, ..) => {
            Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned())
        }
        (true, "", "") => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                .to_owned())
        }
        (true, "", namespace) => Ok(namespace),
        (true, given, _) => Ok(given),
    }
}

fn not_synced(params: &Params) -> String {
    let (version, kind) = (params.given.api_version.as_deref(), params.given.kind.as_deref());
    format!(
        "paramKind kind `&ParamKind{{APIVersion:{},Kind:{},}}` not yet synced to use for admission",
        version.unwrap_or_default(),
        kind.unwrap_or_default()
    )
}

async fn one(
    params: &Params,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Vec<Arc<CachedObject>>, String> {
    let cache = resource.cache.as_ref().ok_or_else(|| not_synced(params))?;
    let found = resource.read(cache, ReadAt::Any, namespace, name).await.map_err(|_| not_synced(params))?;
    Ok(found.into_iter().collect())
}

async fn several(
    params: &Params,
    resource: &Resource,
    namespace: &str,
    selector: LabelSelector,
) -> Result<Vec<Arc<CachedObject>>, String> {
    let cache = resource.cache.as_ref().ok_or_else(|| not_synced(params))?;
    let filter = Filter {
        namespace: resource.namespaced.then(|| namespace.to_owned()),
        matches: Some(Arc::new(move |object: &CachedObject| selector.matches(object))),
        ..Filter::default()
    };
    let options = ListOptions { at: ReadAt::Any, filter, limit: 0, start: None };
    resource.list(cache, options).await.map(|page| page.items).map_err(|_| not_synced(params))
}

/// A parameter in the version of the policy's kind.
fn served(resource: &Resource, object: &CachedObject) -> Result<Value, String> {
    let stored = object.value().map_err(|error| error.to_string())?;
    resource.shown(stored).map_err(|error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_looked_for_where_they_can_be() {
        let check = |namespaced, given: &str, request: &str| {
            let reference = ParamRef { namespace: Some(given.to_owned()), ..ParamRef::default() };
            place(namespaced, &reference, request).map(str::to_owned)
        };
        assert_eq!(check(true, "", "shop").as_deref(), Ok("shop"));
        assert_eq!(check(true, "other", "shop").as_deref(), Ok("other"));
        assert_eq!(check(true, "other", "").as_deref(), Ok("other"));
        assert_eq!(check(false, "", "shop").as_deref(), Ok(""));
        assert!(check(true, "", "").is_err_and(|why| why.starts_with("cannot use namespaced paramRef")));
        assert!(check(false, "other", "").is_err_and(|why| why.starts_with("paramRef.namespace must not")));
    }
}
