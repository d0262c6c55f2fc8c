//! What a request asks for, read from its method and path (upstream `endpoints/request.RequestInfo`).
//!
//! Pure: [`RequestInfo::parse`] sees the method, the path and the query, and decides nothing about permission or
//! existence.

use http::Method;

use crate::query::Query;

/// The attributes of a request that authorization, admission and routing decide on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the request is for an API resource (`/api/...`, `/apis/...` beyond discovery).
    pub is_resource: bool,
    /// The URL path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for non-resource
    /// requests the lower-case HTTP method.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty for none.
    pub namespace: String,
    /// Resource (plural); `namespaces` for a namespace itself.
    pub resource: String,
    /// Subresource, for example `status`; empty for none.
    pub subresource: String,
    /// Object name; empty for none. For list and watch: the name of a `metadata.name=` field selector.
    pub name: String,
    /// All path segments after the version (and namespace).
    pub parts: Vec<String>,
    /// `fieldSelector` and `labelSelector` query parameters of list, watch and deletecollection, as sent.
    pub field_selector: String,
    /// See `field_selector`.
    pub label_selector: String,
}

/// Subresources of a namespace itself: `/api/v1/namespaces/x/status` is not a resource inside of `x`.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Why a path that should name a resource does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {path}")]
pub struct ParseError {
    /// The path as sent.
    pub path: String,
}

impl RequestInfo {
    /// Reads what a request asks for. `path` is the decoded URL path.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, ParseError> {
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        let all: Vec<&str> =
            path.trim_matches('/').split('/').filter(|_| !path.trim_matches('/').is_empty()).collect();
        if all.len() < 3 || !matches!(all[0], "api" | "apis") {
            return Ok(info);
        }
        all[0].clone_into(&mut info.api_prefix);
        let mut parts = &all[1..];
        if info.api_prefix == "apis" {
            if parts.len() < 3 {
                return Ok(info);
            }
            parts[0].clone_into(&mut info.group);
            parts = &parts[1..];
        }
        info.is_resource = true;
        parts[0].clone_into(&mut info.version);
        parts = &parts[1..];
        if matches!(parts[0], "proxy" | "watch") {
            if parts.len() < 2 {
                return Err(ParseError { path: path.to_owned() });
            }
            parts[0].clone_into(&mut info.verb);
            parts = &parts[1..];
        } else {
            verb_of(method).clone_into(&mut info.verb);
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            parts[1].clone_into(&mut info.namespace);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            }
        }
        info.parts = parts.iter().map(|p| (*p).to_owned()).collect();
        info.name_parts(parts);
        info.refine_verb(query);
        Ok(info)
    }

    /// Splits the parts into resource, name and subresource. What follows `proxy/` is a path, not a subresource.
    fn name_parts(&mut self, parts: &[&str]) {
        if parts.len() >= 3 && self.verb != "proxy" {
            parts[2].clone_into(&mut self.subresource);
        }
        if parts.len() >= 2 {
            parts[1].clone_into(&mut self.name);
        }
        if let Some(resource) = parts.first() {
            (*resource).clone_into(&mut self.resource);
        }
    }

    /// A `get` without a name lists or watches; a `delete` without one deletes a collection.
    fn refine_verb(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            let watch = query.first("watch").is_some_and(crate::query::is_true);
            self.verb = if watch { "watch" } else { "list" }.to_owned();
        }
        if self.name.is_empty() && self.verb == "delete" {
            "deletecollection".clone_into(&mut self.verb);
        }
        if matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            query.first("fieldSelector").unwrap_or_default().clone_into(&mut self.field_selector);
            query.first("labelSelector").unwrap_or_default().clone_into(&mut self.label_selector);
            if self.name.is_empty() && self.verb != "deletecollection" {
                self.name = name_selected(&self.field_selector).unwrap_or_default();
            }
        }
    }

    /// Whether a response to this request may take as long as the client likes.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "log" | "proxy")
    }

    /// Group, version and resource.
    #[must_use]
    pub fn gvr(&self) -> api::names::GroupVersionResource {
        api::names::GroupVersionResource::new(self.group.clone(), self.version.clone(), self.resource.clone())
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The name that a field selector demands with `metadata.name=`; only a plain name counts (it becomes part of an
/// authorization decision).
fn name_selected(field_selector: &str) -> Option<String> {
    field_selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let plain = !value.is_empty() && !matches!(value, "." | "..") && !value.contains(['/', '%', '\\']);
        plain.then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &Method, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        RequestInfo::parse(method, path, &Query::parse(query)).expect("a resource path")
    }

    /// verb, group, version, namespace, resource, subresource, name
    fn check(method: &Method, url: &str, expected: [&str; 7]) {
        let info = parse(method, url);
        let found = [
            &info.verb,
            &info.group,
            &info.version,
            &info.namespace,
            &info.resource,
            &info.subresource,
            &info.name,
        ];
        assert_eq!(found.map(String::as_str), expected, "{method} {url}");
        assert!(info.is_resource, "{url}");
    }

    #[test]
    fn resource_paths_are_understood() {
        use Method as M;
        check(&M::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]);
        check(&M::GET, "/api/v1/namespaces/other", ["get", "", "v1", "other", "namespaces", "", "other"]);
        check(&M::GET, "/api/v1/namespaces/other/pods", ["list", "", "v1", "other", "pods", "", ""]);
        check(&M::GET, "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]);
        check(&M::GET, "/api/v1/pods?watch=1", ["watch", "", "v1", "", "pods", "", ""]);
        check(&M::GET, "/api/v1/pods?watch=false", ["list", "", "v1", "", "pods", "", ""]);
        check(&M::GET, "/api/v1/watch/namespaces/other/pods", ["watch", "", "v1", "other", "pods", "", ""]);
        check(
            &M::PUT,
            "/api/v1/namespaces/other/finalize",
            ["update", "", "v1", "other", "namespaces", "finalize", "other"],
        );
        check(&M::POST, "/api/v1/namespaces/a/pods/b/exec", ["create", "", "v1", "a", "pods", "exec", "b"]);
        check(
            &M::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            ["deletecollection", "apps", "v1", "a", "deployments", "", ""],
        );
        check(
            &M::GET,
            "/api/v1/pods?fieldSelector=metadata.name%3Dx",
            ["list", "", "v1", "", "pods", "", "x"],
        );
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/a/b/c/d"] {
            let info = parse(&Method::GET, path);
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.verb, "get");
        }
    }

    #[test]
    fn watch_prefix_without_resource_is_refused() {
        assert!(RequestInfo::parse(&Method::GET, "/api/v1/watch", &Query::default()).is_err());
    }
}
