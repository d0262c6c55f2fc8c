//! What other servers serve, for discovery (upstream `handler_discovery.go`).

use std::time::Duration;

use http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use super::availability::aggregator;
use super::{Aggregator, Backend};

/// How long a server may take to say what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// Aggregated discovery, newest form first.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// What a version of another server was found to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its resources, as in aggregated discovery.
    pub resources: Option<Value>,
    /// Whether that is what it has now.
    pub current: bool,
}

impl Found {
    /// As an `APIVersionDiscovery`.
    #[must_use]
    pub fn to_value(&self, version: &str) -> Value {
        let freshness = if self.current { "Current" } else { "Stale" };
        let mut value = json!({"version": version, "freshness": freshness});
        if let Some(resources) = &self.resources {
            value["resources"] = resources.clone();
        }
        value
    }
}

impl Aggregator {
    /// Finds out what a backend has now, if it can be asked.
    pub(super) async fn discover(&self, backend: &Backend, available: bool) {
        let asked = async {
            let resources = ask(backend).await?;
            self.inner.documents.refresh(backend).await;
            Ok::<_, String>(resources)
        };
        let found = match available {
            true => tokio::time::timeout(PATIENCE * 2, asked)
                .await
                .unwrap_or_else(|_| Err("it takes too long".into())),
            false => Err("it is not available".to_owned()),
        };
        let found = match found {
            Ok(resources) => Found { resources, current: true },
            Err(why) => {
                tracing::debug!(api_service = backend.name, why, "could not find out what a server serves");
                Found { resources: None, current: false }
            }
        };
        // It may have gone meanwhile.
        if self.inner.backends.read().contains_key(&backend.name) {
            self.inner.found.write().insert(backend.name.clone(), found);
        }
    }
}

/// Asks for the resources of a version: for all that the server has if it knows that form, else for the version alone.
async fn ask(backend: &Backend) -> Result<Option<Value>, String> {
    let whole = backend.get("/apis", AGGREGATED, &aggregator()).await?;
    let content_type = whole.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let aggregated = content_type.is_some_and(|media| media.contains("as=APIGroupDiscoveryList"));
    if whole.status == 503 {
        return Err("it answers 503".to_owned());
    }
    if whole.status == 200 && aggregated {
        let list: Value = serde_json::from_slice(&whole.body).map_err(|error| error.to_string())?;
        return Ok(resources_of(&list, &backend.group, &backend.version));
    }
    let path = format!("/apis/{}/{}", backend.group, backend.version);
    let legacy = backend.get(&path, "application/json", &aggregator()).await?;
    if legacy.status != 200 {
        return Err(format!("failed to download legacy discovery for {path}: {}", legacy.status));
    }
    let list: Value = serde_json::from_slice(&legacy.body).map_err(|error| error.to_string())?;
    Ok(Some(from_legacy(&list, &backend.group, &backend.version)))
}

/// The resources of a version in aggregated discovery.
fn resources_of(list: &Value, group: &str, version: &str) -> Option<Value> {
    let items = list["items"].as_array()?;
    let found = items.iter().find(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group)?;
    let found = found["versions"].as_array()?.iter().find(|known| known["version"] == version)?;
    let mut resources = found.get("resources").cloned()?;
    for resource in resources.as_array_mut().into_iter().flatten() {
        fill_kind(resource);
        let parts = resource.get_mut("subresources").and_then(Value::as_array_mut);
        parts.into_iter().flatten().for_each(fill_kind);
    }
    (!resources.is_null()).then_some(resources)
}

/// Old clients do not expect it to be missing.
fn fill_kind(entry: &mut Value) {
    let missing = entry["responseKind"].is_null();
    if let Some(entry) = entry.as_object_mut().filter(|_| missing) {
        entry.insert("responseKind".to_owned(), json!({"group": "", "version": "", "kind": ""}));
    }
}

/// An APIResourceList in the form of aggregated discovery (upstream `ConvertGroupVersionIntoToDiscovery`).
fn from_legacy(list: &Value, group: &str, version: &str) -> Value {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let kind_of = |entry: &Value| {
        let own = |field: &str, default: &str| {
            let given = text(entry, field);
            if given.is_empty() { default.to_owned() } else { given }
        };
        json!({"group": own("group", group), "version": own("version", version), "kind": text(entry, "kind")})
    };
    let mut resources: Vec<Value> = Vec::new();
    let mut parts: Map<String, Value> = Map::new();
    for entry in list["resources"].as_array().into_iter().flatten() {
        let name = text(entry, "name");
        if let Some((parent, part)) = name.split_once('/') {
            let part = json!({"subresource": part, "responseKind": kind_of(entry), "verbs": entry["verbs"]});
            if let Some(list) = parts.entry(parent).or_insert_with(|| json!([])).as_array_mut() {
                list.push(part);
            }
            continue;
        }
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({"resource": name, "responseKind": kind_of(entry), "scope": scope,
            "singularResource": text(entry, "singularName"), "verbs": entry["verbs"]});
        for field in ["shortNames", "categories"] {
            if !entry[field].is_null() {
                resource[field] = entry[field].clone();
            }
        }
        resources.push(resource);
    }
    for resource in &mut resources {
        let name = text(resource, "resource");
        if let Some(parts) = parts.remove(&name) {
            resource["subresources"] = parts;
        }
    }
    // Parts of something that is no resource itself stand alone.
    for (parent, parts) in parts {
        resources
            .push(json!({"resource": parent, "scope": "Namespaced", "singularResource": "", "verbs": [],
            "responseKind": {"group": "", "version": "", "kind": ""}, "subresources": parts}));
    }
    Value::Array(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_discovery_is_understood() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "fischers", "namespaced": false, "kind": "Fischer", "verbs": ["get"], "shortNames": ["f"]}]});
        let kind = |kind: &str| json!({"group": "g.io", "version": "v1", "kind": kind});
        let expected = json!([
            {"resource": "flunders", "responseKind": kind("Flunder"), "scope": "Namespaced",
             "singularResource": "flunder", "verbs": ["get"],
             "subresources": [{"subresource": "status", "responseKind": kind("Flunder"), "verbs": ["update"]}]},
            {"resource": "fischers", "responseKind": kind("Fischer"), "scope": "Cluster", "singularResource": "",
             "verbs": ["get"], "shortNames": ["f"]}]);
        assert_eq!(from_legacy(&list, "g.io", "v1"), expected);
    }

    #[test]
    fn one_version_is_taken_from_the_whole() {
        let list = json!({"items": [{"metadata": {"name": "g.io"}, "versions": [
            {"version": "v1", "resources": [{"resource": "a", "subresources": [{"subresource": "b"}]}]},
            {"version": "v2"}]}]});
        let empty = json!({"group": "", "version": "", "kind": ""});
        let expected = json!([{"resource": "a", "responseKind": empty,
                               "subresources": [{"subresource": "b", "responseKind": empty}]}]);
        assert_eq!(resources_of(&list, "g.io", "v1"), Some(expected));
        assert_eq!(resources_of(&list, "g.io", "v2"), None);
        assert_eq!(resources_of(&list, "other", "v1"), None);
    }
}
