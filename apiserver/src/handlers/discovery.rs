//! Discovery: which groups, versions and resources there are, in the old form (one document per version) and the
//! aggregated one (upstream `endpoints/discovery`).

use std::cmp::Reverse;

use api::names::{GroupVersion, GroupVersionKind};
use api::status::ApiError;
use base64::Engine as _;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::aggregator::{Aggregator, Found};
use crate::body::{self, Body};
use crate::bootstrap::objects;
use crate::negotiate::{self, Restrictions};
use crate::registry::{Group, Resource, Subresource, Table};
use crate::server::service::page_not_found;
use crate::server::{Context, response};

/// Where groups and versions of custom resources stand.
const CUSTOM: (i32, i32) = (1000, 100);

/// Answers a discovery path; `None` if it is none.
pub fn serve(cx: &Context, path: &str) -> Result<Option<Response<Body>>, ApiError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let table = cx.server.registry.table();
    let answer = match parts.as_slice() {
        ["api"] => either(cx, &table, true)?,
        ["apis"] => either(cx, &table, false)?,
        ["api", version] => resources(cx, &table, "", version)?,
        ["apis", group] => match groups(cx, &table).into_iter().find(|known| known.name == *group) {
            Some(found) => plain(cx, &group_value(&found, true))?,
            None => page_not_found(),
        },
        ["apis", group, version] if table.group(group).is_some() => resources(cx, &table, group, version)?,
        ["apis", ..] => page_not_found(),
        _ => return Ok(None),
    };
    Ok(Some(answer))
}

fn plain(cx: &Context, value: &Value) -> Result<Response<Body>, ApiError> {
    let accepted = negotiate::accept(&cx.headers, &cx.query, Restrictions::OBJECTS)?;
    response::object(StatusCode::OK, accepted, value, &cx.headers)
}

/// `/api` or `/apis`, aggregated if the client prefers that.
fn either(cx: &Context, table: &Table, core: bool) -> Result<Response<Body>, ApiError> {
    if let Some(version) = aggregated_version(cx) {
        return Ok(aggregated(cx, table, core, version));
    }
    let value = if core { api_versions(cx) } else { group_list(&groups(cx, table)) };
    let mut answer = plain(cx, &value)?;
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn api_versions(cx: &Context) -> Value {
    let address = cx.server.external_address();
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// All groups, those of other servers among them (upstream `SortedByGroupAndVersion`).
fn groups(cx: &Context, table: &Table) -> Vec<Group> {
    let mut groups = table.groups.clone();
    let Some(security) = cx.server.security() else { return groups };
    for backend in security.aggregator.backends() {
        let (name, version) = (&backend.group, &backend.version);
        match groups.iter_mut().find(|known| known.name == *name) {
            Some(known) if known.versions.contains(version) => {}
            Some(known) => {
                let later = |other: &String| {
                    let own = (backend.version_priority, version.as_str());
                    is_before(own, (version_priority(&security.aggregator, name, other), other.as_str()))
                };
                let place = known.versions.iter().position(later).unwrap_or(known.versions.len());
                known.versions.insert(place, version.clone());
            }
            None => {
                let later = |other: &Group| {
                    let priority = group_priority(&security.aggregator, other);
                    (priority, Reverse(&other.name)) < (backend.group_priority, Reverse(name))
                };
                let place = groups.iter().position(later).unwrap_or(groups.len());
                let versions = vec![version.clone()];
                groups.insert(place, Group { name: name.clone(), versions, custom: false });
            }
        }
    }
    groups
}

/// Where a group stands: the one that is always first, those of this server, those of others.
fn group_priority(aggregator: &Aggregator, group: &Group) -> i32 {
    if group.name == "apiregistration.k8s.io" {
        return i32::MAX;
    }
    let others = aggregator.backends();
    let of_others = others.iter().filter(|other| other.group == group.name).map(|other| other.group_priority);
    let own = objects::priorities(&group.name, group.versions.first().map_or("", String::as_str));
    of_others.chain(own.map(|(group, _)| group)).max().unwrap_or(CUSTOM.0)
}

fn version_priority(aggregator: &Aggregator, group: &str, version: &str) -> i32 {
    let others = aggregator.backends();
    let other = others.iter().find(|other| other.group == group && other.version == version);
    let own = objects::priorities(group, version).map_or(CUSTOM.1, |(_, version)| version);
    other.map_or(own, |other| other.version_priority)
}

/// Whether a version comes before another: by priority, then by name.
fn is_before(one: (i32, &str), other: (i32, &str)) -> bool {
    one.0.cmp(&other.0).then_with(|| api::crd::versions::compare(one.1, other.1)).is_gt()
}

fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> =
        groups.iter().filter(|group| !group.name.is_empty()).map(|group| group_value(group, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_value(group: &Group, alone: bool) -> Value {
    let version =
        |version: &String| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut value = json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions});
    if alone {
        value["kind"] = "APIGroup".into();
        value["apiVersion"] = "v1".into();
    }
    value
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
fn resources(cx: &Context, table: &Table, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let found = table.resources(group, version);
    if found.is_empty() {
        let known = group.is_empty() || cx.server.registry.has_built_in_group(group);
        return if known { Err(ApiError::no_such_resource()) } else { Ok(page_not_found()) };
    }
    let mut entries = Vec::new();
    for resource in found {
        entries.push(resource_value(resource));
        entries.extend(resource.subresources.iter().map(|sub| subresource_value(resource, sub)));
    }
    let group_version = GroupVersion::new(group.to_owned(), version.to_owned()).to_string();
    let mut value = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": entries});
    if !group.is_empty() {
        value["apiVersion"] = "v1".into();
    }
    plain(cx, &value)
}

fn resource_value(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.gvr.resource,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.gvk.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if resource.cache.is_some() {
        value["storageVersionHash"] = storage_version_hash(&resource.stored_as).into();
    }
    value
}

fn subresource_value(resource: &Resource, sub: &Subresource) -> Value {
    let mut value = json!({
        "name": format!("{}/{}", resource.gvr.resource, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind.kind,
        "verbs": sub.verbs,
    });
    if sub.kind.group != resource.gvk.group || sub.kind.version != resource.gvk.version {
        value["group"] = sub.kind.group.clone().into_owned().into();
        value["version"] = sub.kind.version.clone().into_owned().into();
    }
    value
}

/// As upstream's `StorageVersionHash`.
fn storage_version_hash(kind: &GroupVersionKind) -> String {
    let text = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

/// The version of `apidiscovery.k8s.io` that the client prefers to the plain form.
fn aggregated_version(cx: &Context) -> Option<&'static str> {
    let text: Vec<&str> =
        cx.headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    for media in api::codec::media::parse_accept(&text.join(",")) {
        if !media.covers("application/json") {
            continue;
        }
        match (media.param("as"), media.param("g"), media.param("v")) {
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => return Some("v2"),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Some("v2beta1");
            }
            (None, _, _) => return None,
            _ => {}
        }
    }
    None
}

fn aggregated(cx: &Context, table: &Table, core: bool, version: &'static str) -> Response<Body> {
    let aggregator = cx.server.security().map(|security| &security.aggregator);
    let groups = groups(cx, table);
    let groups = groups.iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(|group| aggregated_group(table, aggregator, group)).collect();
    let value = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let text = value.to_string();
    let digest: String = Sha512::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
    let etag = format!("\"{digest}\"");
    let known = cx.headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes());
    let mut answer = if known {
        let mut answer = Response::new(body::empty());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        response::compressed(StatusCode::OK, "application/json", text.into(), &cx.headers)
    };
    let headers = answer.headers_mut();
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let (Ok(content_type), Ok(etag)) = (HeaderValue::from_str(&content_type), HeaderValue::from_str(&etag))
    {
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(ETAG, etag);
    }
    headers.append(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn aggregated_group(table: &Table, aggregator: Option<&Aggregator>, group: &Group) -> Value {
    let version = |version: &String| {
        let path = format!("/apis/{}/{version}", group.name);
        if let Some(backend) = aggregator.and_then(|aggregator| aggregator.backend(&path)) {
            let found = aggregator.and_then(|aggregator| aggregator.found(&backend.name));
            return found.unwrap_or(Found { resources: None, current: false }).to_value(version);
        }
        let resources: Vec<Value> = table
            .resources(&group.name, version)
            .into_iter()
            .map(|resource| aggregated_resource(resource))
            .collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut metadata = Map::new();
    metadata.insert("creationTimestamp".into(), Value::Null);
    if !group.name.is_empty() {
        metadata.insert("name".into(), group.name.clone().into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn kind_value(kind: &GroupVersionKind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.gvr.resource,
        "responseKind": kind_value(&resource.gvk),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    let subresource = |sub: &Subresource| json!({"subresource": sub.name, "responseKind": kind_value(&sub.kind), "verbs": sub.verbs});
    if !resource.subresources.is_empty() {
        value["subresources"] = resource.subresources.iter().map(subresource).collect::<Vec<_>>().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_version_hashes_are_upstreams() {
        // As a v1.36 server publishes them.
        assert_eq!(storage_version_hash(&GroupVersionKind::new("", "v1", "Pod")), "xPOwRZ+Yhw8=");
        assert_eq!(storage_version_hash(&GroupVersionKind::new("apps", "v1", "Deployment")), "8aSe+NMegvE=");
    }
}
