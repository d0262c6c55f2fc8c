//! The routes of built-in resources, of the discovery of their groups and of the few other paths that are described.

use api::names::GroupVersionKind;
use api::registry::{self, Resource, Subresource};
use api::schema;

use super::routes::{Content, META, OBJECTS, Route, STREAMS, article, title};
use super::schema::{names, published_name};
use super::texts::Texts;
use crate::authn::discovery::{CONFIGURATION_PATH, KEYS_PATH};
use crate::handlers::delete::returns_object;

/// What a connection to a pod, node or service may be opened with, by verb.
const CONNECT: &[(&str, &[&str])] = &[
    ("get", &["get"]),
    ("create", &["post"]),
    ("update", &["put", "head", "options"]),
    ("patch", &["patch"]),
    ("delete", &["delete"]),
];

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Where a group version is served.
#[must_use]
pub fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// All routes under one group and version.
#[must_use]
pub fn of_version(group: &str, version: &str, texts: &Texts) -> Vec<Route> {
    let mut routes = vec![resource_list(group, version)];
    for row in registry::in_version(group, version) {
        let maker = Maker { row, sub: None, texts };
        maker.collection(&mut routes);
        maker.item(&mut routes);
        for sub in row.subresources {
            let maker = Maker { sub: Some(sub), ..maker };
            if sub.kind.ends_with("Options") {
                maker.connections(sub, &mut routes);
            } else {
                maker.subresource(sub, &mut routes);
            }
        }
    }
    routes
}

/// The route of a group's own discovery document.
#[must_use]
pub fn of_group(group: &str) -> Vec<Route> {
    let (path, operation, text, answer) = match group {
        "" => ("/api/".to_owned(), "APIVersions", "get available API versions", "APIVersions"),
        group => (format!("/apis/{group}/"), "APIGroup", "get information of a group", "APIGroup"),
    };
    vec![discovery(&path, operation, text, answer)]
}

/// The route of the list of groups.
#[must_use]
pub fn of_groups() -> Vec<Route> {
    vec![discovery("/apis/", "APIVersions", "get available API versions", "APIGroupList")]
}

/// The routes outside the API, each a document of its own; the first part says which.
#[must_use]
pub fn others() -> Vec<(&'static str, Route)> {
    let plain = |path: &str, operation, text: &str, produces, content: &Content| {
        let mut route = Route::new("get", &format!("{path}/"), ("get", operation), text.to_owned());
        route.produces = vec![produces];
        route.answers(content, &[200]);
        route
    };
    let info = Content::Named("io.k8s.apimachinery.pkg.version.Info".to_owned());
    let mut version =
        plain("/version", "CodeVersion", "get the version of the server", "application/json", &info);
    version.consumes = vec!["application/json"];
    let configuration = plain(
        CONFIGURATION_PATH,
        "ServiceAccountIssuerOpenIDConfiguration",
        "get the OpenID configuration of the issuer of service account tokens",
        "application/json",
        &Content::Text,
    );
    let keys = plain(
        KEYS_PATH,
        "ServiceAccountIssuerOpenIDKeyset",
        "get the keys that verify service account tokens, as a JSON Web Key Set",
        "application/jwk-set+json",
        &Content::Text,
    );
    vec![
        ("version", version),
        (CONFIGURATION_PATH.trim_start_matches('/'), configuration),
        (KEYS_PATH.trim_start_matches('/'), keys),
    ]
}

fn resource_list(group: &str, version: &str) -> Route {
    discovery(
        &format!("{}/", root(group, version)),
        "APIResources",
        "get available resources",
        "APIResourceList",
    )
}

fn discovery(path: &str, operation: &str, text: &str, answer: &str) -> Route {
    let mut route = Route::new("get", path, ("get", operation), text.to_owned());
    route.consumes = OBJECTS.to_vec();
    route.produces = OBJECTS.to_vec();
    route.answers(&meta(answer), &[200]);
    route
}

fn meta(kind: &str) -> Content {
    Content::Named(format!("{META}{kind}"))
}

fn definition(kind: &GroupVersionKind) -> String {
    schema::type_for(kind).map(|ty| published_name(ty.name())).unwrap_or_default()
}

/// Makes the routes of a resource or of one of its subresources.
#[derive(Clone, Copy)]
struct Maker<'t> {
    row: &'static Resource,
    sub: Option<&'static Subresource>,
    texts: &'t Texts,
}

impl Maker<'_> {
    fn kind(&self) -> GroupVersionKind {
        self.sub.map_or_else(|| self.row.gvk(), |sub| self.row.subresource_kind(sub))
    }

    /// The path of the collection below the group version, or of the collection in all namespaces.
    fn path(&self, all: bool) -> String {
        if self.row.namespaced() && !all {
            format!("namespaces/{{namespace}}/{}", self.row.plural)
        } else {
            self.row.plural.to_owned()
        }
    }

    fn item_path(&self) -> String {
        let sub = self.sub.map(|sub| format!("/{}", sub.name)).unwrap_or_default();
        format!("{}/{{name}}{sub}", self.path(false))
    }

    /// A route with what all routes of resources have.
    fn route(
        &self,
        path: &str,
        (method, action): (&'static str, &'static str),
        name: (&str, String),
        text: String,
    ) -> Route {
        let path = format!("{}/{path}", root(self.row.group, self.row.version));
        let mut route = Route::new(method, &path, (name.0, &name.1), text);
        route.action = action;
        route.kind = Some(self.kind());
        route.consumes = vec!["*/*"];
        route.produces = OBJECTS.to_vec();
        if path.contains("{namespace}") {
            route.path_parameter("namespace", "the namespace of the object".to_owned());
        }
        if path.contains("{name}") {
            route.path_parameter("name", format!("name of the {}", self.kind().kind));
        }
        if action != "connect" {
            route.pretty(self.texts);
        }
        route
    }

    /// What operations are called after: `NamespacedPodLog`.
    fn operation(&self) -> String {
        let namespaced = if self.row.namespaced() { "Namespaced" } else { "" };
        let sub = self.sub.map(|sub| title(sub.name)).unwrap_or_default();
        format!("{namespaced}{}{sub}", self.row.kind)
    }

    /// "the specified Pod" or "log of the specified Pod".
    fn of(&self, object: &str) -> String {
        self.sub.map_or_else(|| object.trim_start().to_owned(), |sub| format!("{} of{object}", sub.name))
    }

    fn one(&self) -> String {
        self.of(&format!("{}{}", article(self.row.kind), self.row.kind))
    }

    fn specified(&self) -> String {
        self.of(&format!(" the specified {}", self.row.kind))
    }

    fn collection(&self, routes: &mut Vec<Route>) {
        let row = self.row;
        if row.has_verb("list") {
            self.list(false, routes);
            if row.namespaced() {
                self.list(true, routes);
            }
        }
        if row.has_verb("create") {
            routes.push(self.post(&self.path(false)));
        }
        if row.has_verb("deletecollection") {
            let name = ("delete", format!("collection{}", self.operation()));
            let text = format!("delete collection of {}", row.kind);
            let mut route = self.route(&self.path(false), ("delete", "deletecollection"), name, text);
            route.body = Some((format!("{META}DeleteOptions"), false));
            route.options(&format!("{META}DeleteOptions"), &[], self.texts);
            route.options(&format!("{META}ListOptions"), &["watch", "allowWatchBookmarks"], self.texts);
            route.answers(&meta("Status"), &[200]);
            routes.push(route);
        }
    }

    fn list(&self, all: bool, routes: &mut Vec<Route>) {
        let row = self.row;
        let operation = if all { format!("{}ForAllNamespaces", row.kind) } else { self.operation() };
        let watched = row.has_verb("watch");
        let what = if watched { "list or watch" } else { "list" };
        let text = format!("{what} objects of kind {}", row.kind);
        let mut route = self.route(&self.path(all), ("get", "list"), ("list", operation), text);
        route.produces.extend(STREAMS);
        route.options(&format!("{META}ListOptions"), &[], self.texts);
        let kind = GroupVersionKind::new(row.group, row.version, row.list_kind());
        route.answers(&Content::Named(definition(&kind)), &[200]);
        routes.push(route);
        if watched {
            let operation = if all {
                format!("{}ListForAllNamespaces", row.kind)
            } else {
                format!("{}List", self.operation())
            };
            let text = format!(
                "watch individual changes to a list of {}. deprecated: use the 'watch' parameter with a list operation \
                 instead.",
                row.kind
            );
            let path = format!("watch/{}", self.path(all));
            routes.push(self.watch(&path, "watchlist", operation, text));
        }
    }

    fn watch(&self, path: &str, action: &'static str, operation: String, text: String) -> Route {
        let mut route = self.route(path, ("get", action), ("watch", operation), text);
        route.produces.extend(STREAMS);
        route.options(&format!("{META}ListOptions"), &[], self.texts);
        route.answers(&meta("WatchEvent"), &[200]);
        route
    }

    fn item(&self, routes: &mut Vec<Route>) {
        let row = self.row;
        for verb in ["get", "update", "patch"] {
            if row.has_verb(verb) {
                routes.push(self.on_item(verb));
            }
        }
        if row.has_verb("delete") {
            let text = format!("delete{}", self.article_and_kind());
            let mut route =
                self.route(&self.item_path(), ("delete", "delete"), ("delete", self.operation()), text);
            route.body = Some((format!("{META}DeleteOptions"), false));
            route.options(&format!("{META}DeleteOptions"), &[], self.texts);
            // Namespaces answer with the object but do not say so.
            let object = returns_object(row.group, row.plural) && row.plural != "namespaces";
            let answer = if object { Content::Named(definition(&row.gvk())) } else { meta("Status") };
            route.answers(&answer, &[200, 202]);
            routes.push(route);
        }
        if row.has_verb("watch") {
            let text = format!(
                "watch changes to an object of kind {}. deprecated: use the 'watch' parameter with a list operation \
                 instead, filtered to a single item with the 'fieldSelector' parameter.",
                row.kind
            );
            routes.push(self.watch(&format!("watch/{}", self.item_path()), "watch", self.operation(), text));
        }
    }

    fn article_and_kind(&self) -> String {
        format!("{}{}", article(self.row.kind), self.row.kind)
    }

    /// GET, PUT or PATCH of an object or of a subresource.
    fn on_item(&self, verb: &str) -> Route {
        let (method, name, text, codes): (_, _, _, &[u16]) = match verb {
            "get" => (("get", "get"), "read", format!("read {}", self.specified()), &[200]),
            "update" => (("put", "put"), "replace", format!("replace {}", self.specified()), &[200, 201]),
            _ => (("patch", "patch"), "patch", format!("partially update {}", self.specified()), &[200, 201]),
        };
        let mut route = self.route(&self.item_path(), method, (name, self.operation()), text);
        let content = definition(&self.kind());
        match verb {
            "update" => {
                route.body = Some((content.clone(), true));
                route.options(&format!("{META}UpdateOptions"), &[], self.texts);
            }
            "patch" => {
                route.consumes = PATCHES.to_vec();
                route.body = Some((names::PATCH.to_owned(), true));
                route.options(&format!("{META}PatchOptions"), &[], self.texts);
            }
            _ => {}
        }
        route.answers(&Content::Named(content), codes);
        route
    }

    fn post(&self, path: &str) -> Route {
        let text = format!("create {}", self.one());
        let mut route = self.route(path, ("post", "post"), ("create", self.operation()), text);
        let content = definition(&self.kind());
        route.body = Some((content.clone(), true));
        route.options(&format!("{META}CreateOptions"), &[], self.texts);
        route.answers(&Content::Named(content), &[200, 201, 202]);
        route
    }

    fn subresource(&self, sub: &Subresource, routes: &mut Vec<Route>) {
        for verb in sub.verbs {
            let mut route = match *verb {
                "create" => self.post(&self.item_path()),
                verb => self.on_item(verb),
            };
            if sub.name == "log" {
                route.produces.insert(0, "text/plain");
                route.options("io.k8s.api.core.v1.PodLogOptions", &[], self.texts);
                route.answers = vec![(200, Content::Text)];
            }
            routes.push(route);
        }
    }

    fn connections(&self, sub: &Subresource, routes: &mut Vec<Route>) {
        let methods =
            CONNECT.iter().filter(|(verb, _)| sub.verbs.contains(verb)).flat_map(|(_, methods)| *methods);
        for method in methods {
            routes.push(self.connection(sub, method, false));
            if sub.name == "proxy" {
                routes.push(self.connection(sub, method, true));
            }
        }
    }

    fn connection(&self, sub: &Subresource, method: &'static str, with_path: bool) -> Route {
        let text = format!(
            "connect {} requests to {}",
            method.to_uppercase(),
            self.of(&format!(" {}", self.row.kind))
        );
        let (path, suffix) = if with_path { ("/{path}", "WithPath") } else { ("", "") };
        let operation = format!("{}{}{suffix}", title(method), self.operation());
        let path = format!("{}{path}", self.item_path());
        let mut route = self.route(&path, (method, "connect"), ("connect", operation), text);
        route.produces = vec!["*/*"];
        if with_path {
            route.path_parameter("path", "path to the resource".to_owned());
        }
        if let Some(ty) = schema::type_for(&self.row.subresource_kind(sub)) {
            route.options(ty.name(), &[], self.texts);
        }
        route.answers(&Content::Text, &[200]);
        route
    }
}
