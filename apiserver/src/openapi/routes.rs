//! What can be asked of the server, independent of any edition of OpenAPI: routes with their names, parameters and
//! answers (upstream `endpoints/installer.go` and `kube-openapi/pkg/builder`).

use std::collections::BTreeMap;

use api::names::GroupVersionKind;
use api::schema::{self, Node};

use super::texts::Texts;

/// What is sent or answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text,
    /// An object by the name of its definition.
    Named(String),
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
}

/// A parameter that is not the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// JSON type.
    pub kind: &'static str,
    /// What it is about.
    pub text: String,
}

/// One method of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Path with `{name}` and the like.
    pub path: String,
    /// Method in lower case.
    pub method: &'static str,
    /// `operationId`.
    pub id: String,
    /// What it does.
    pub text: String,
    /// Tags.
    pub tags: Vec<String>,
    /// `x-kubernetes-action`; empty for what is no resource.
    pub action: &'static str,
    /// The kind it is about.
    pub kind: Option<GroupVersionKind>,
    /// Media types of the body.
    pub consumes: Vec<&'static str>,
    /// Media types of the answer.
    pub produces: Vec<&'static str>,
    /// Parameters other than the body.
    pub parameters: Vec<Parameter>,
    /// The body, and whether it is required.
    pub body: Option<(String, bool)>,
    /// Answers by status code.
    pub answers: Vec<(u16, Content)>,
}

/// Media types of objects.
pub const OBJECTS: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Media types of watches.
pub const STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// The package of the kinds that every group uses.
pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Route {
    /// A route that answers `answer` to a GET. Its name begins with a verb, `verb` letters of it; where it stands is
    /// put in between (upstream `GetOperationIDAndTags`).
    #[must_use]
    pub fn new(method: &'static str, path: &str, operation: (&str, &str), text: String) -> Self {
        let (id, tags) = id_and_tags(path, operation);
        Self {
            path: path.to_owned(),
            method,
            id,
            text,
            tags,
            action: "",
            kind: None,
            consumes: Vec::new(),
            produces: Vec::new(),
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
        }
    }

    /// Adds a parameter in the path.
    pub fn path_parameter(&mut self, name: &str, text: String) {
        self.parameters.push(Parameter { name: name.to_owned(), place: Place::Path, kind: "string", text });
    }

    /// Adds `pretty`.
    pub fn pretty(&mut self, texts: &Texts) {
        self.query_parameter("pretty", "string", texts.of_option("", "pretty"));
    }

    fn query_parameter(&mut self, name: &str, kind: &'static str, text: Option<String>) {
        let text = text.unwrap_or_default();
        self.parameters.push(Parameter { name: name.to_owned(), place: Place::Query, kind, text });
    }

    /// Adds the fields of options as parameters, except some (upstream `AddObjectParams`).
    pub fn options(&mut self, type_name: &str, except: &[&str], texts: &Texts) {
        let Some(ty) = schema::type_named(type_name) else { return };
        for field in ty.fields() {
            let plain = match ty.node(field).node() {
                Node::List { item, .. } => ty.schema().node(*item).node(),
                node => node,
            };
            let kind = match plain {
                Node::String => "string",
                Node::Int32 | Node::Int64 => "integer",
                Node::Bool => "boolean",
                _ => continue,
            };
            let name = field.name.as_ref();
            if matches!(name, "apiVersion" | "kind") || except.contains(&name) {
                continue;
            }
            self.query_parameter(name, kind, texts.of_option(ty.short_name(), name));
        }
    }

    /// Adds answers of the same content.
    pub fn answers(&mut self, content: &Content, codes: &[u16]) {
        self.answers.extend(codes.iter().map(|code| (*code, content.clone())));
    }
}

/// What a status code means.
#[must_use]
pub fn code_text(code: u16) -> &'static str {
    match code {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        _ => "Unauthorized",
    }
}

/// Routes by path.
#[must_use]
pub fn by_path(routes: Vec<Route>) -> BTreeMap<String, Vec<Route>> {
    let mut paths: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    for mut route in routes {
        route.parameters.sort_by(|a, b| (a.name.as_str(), a.place).cmp(&(b.name.as_str(), b.place)));
        paths.entry(route.path.clone()).or_default().push(route);
    }
    paths
}

fn id_and_tags(path: &str, (verb, operation): (&str, &str)) -> (String, Vec<String>) {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first() == Some(&"api") {
        parts.splice(0..1, ["apis", "core"]);
    }
    let mut id = verb.to_owned();
    let mut tags = Vec::new();
    match parts.as_slice() {
        ["apis", group, rest @ ..] => {
            let group = group.strip_suffix(".k8s.io").unwrap_or(group);
            id += &identifier(group, true);
            let mut tag = identifier(group, false);
            if let Some(version) = rest.first() {
                id += &identifier(version, true);
                tag = format!("{tag}_{}", identifier(version, false));
            }
            tags.push(tag);
        }
        [first, ..] => tags.push(identifier(first, false)),
        [] => {}
    }
    (id + &identifier(operation, true), tags)
}

/// Upstream's `ToValidOperationID`.
fn identifier(text: &str, mut capital: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.char_indices() {
        if c.is_alphabetic() || c == '_' || (i != 0 && c.is_numeric()) {
            if std::mem::take(&mut capital) {
                out.extend(c.to_uppercase());
            } else {
                out.push(c);
            }
        } else {
            capital = true;
        }
    }
    out
}

/// The article that a kind has, between spaces; kinds that look like a plural have none (upstream
/// `GetArticleForNoun`).
#[must_use]
pub fn article(noun: &str) -> &'static str {
    if noun.ends_with('s') && !noun.ends_with("ss") {
        return " ";
    }
    match noun.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('a' | 'e' | 'i' | 'o' | 'u') => " an ",
        _ => " a ",
    }
}

/// With a capital at the beginning.
#[must_use]
pub fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_after_group_and_version() {
        for (path, verb, operation, id, tag) in [
            (
                "/api/v1/namespaces/{namespace}/pods",
                "list",
                "NamespacedPod",
                "listCoreV1NamespacedPod",
                "core_v1",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/roles",
                "list",
                "Role",
                "listRbacAuthorizationV1Role",
                "rbacAuthorization_v1",
            ),
            (
                "/apis/stable.example.com/v1/crontabs",
                "read",
                "CronTab",
                "readStableExampleComV1CronTab",
                "stableExampleCom_v1",
            ),
            ("/api/", "get", "APIVersions", "getCoreAPIVersions", "core"),
            ("/apis/", "get", "APIVersions", "getAPIVersions", "apis"),
            ("/apis/apps/", "get", "APIGroup", "getAppsAPIGroup", "apps"),
            ("/version/", "get", "CodeVersion", "getCodeVersion", "version"),
            ("/.well-known/openid-configuration/", "get", "X", "getX", "WellKnown"),
        ] {
            let (found, tags) = id_and_tags(path, (verb, operation));
            assert_eq!((found.as_str(), tags), (id, vec![tag.to_owned()]), "{path}");
        }
    }

    #[test]
    fn articles_fit_the_noun() {
        for (noun, expected) in [
            ("Pod", " a "),
            ("Ingress", " an "),
            ("Endpoints", " "),
            ("IngressClass", " an "),
            ("Service", " a "),
        ] {
            assert_eq!(article(noun), expected, "{noun}");
        }
    }
}
