//! Custom resources as OpenAPI describes them (upstream `apiextensions-apiserver/pkg/controller/openapi/builder`).

use std::collections::BTreeMap;

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::document::Head;
use super::publisher::Subject;
use super::routes::{Content, META, Route, article, title};
use super::schema::{Definitions, Edition, names};
use super::structural;
use super::texts::Texts;

const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// One served version of a custom resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomVersion {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind of its objects.
    pub kind: String,
    /// Kind of lists of them.
    pub list_kind: String,
    /// Plural.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The `openAPIV3Schema` as JSON text; `None` if there is none, or one that is not structural.
    pub schema: Option<String>,
    /// `spec.preserveUnknownFields` of the definition.
    pub preserve_unknown_fields: bool,
    /// Whether it has a status subresource.
    pub status: bool,
    /// Whether it has a scale subresource.
    pub scale: bool,
    /// The paths of its selectable fields, as they stand in the definition.
    pub selectable_fields: Vec<String>,
}

/// The head of documents about custom resources only.
#[must_use]
pub fn head() -> Head {
    Head { title: "Kubernetes CRD Swagger", version: "v0.1.0".to_owned(), secured: false }
}

impl CustomVersion {
    /// The name of its part in version 3.
    #[must_use]
    pub fn part(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }

    /// The part of version 3 that it belongs to.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::Part(self.part())
    }

    fn model(&self, kind: &str) -> String {
        let group: Vec<&str> = self.group.rsplit('.').collect();
        format!("{}.{}.{kind}", group.join("."), self.version)
    }

    /// Its routes.
    #[must_use]
    pub fn routes(&self, texts: &Texts) -> Vec<Route> {
        let root = format!("/apis/{}/{}", self.group, self.version);
        let everywhere = format!("{root}/{}", self.plural);
        let collection = if self.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", self.plural)
        } else {
            everywhere.clone()
        };
        let item = format!("{collection}/{{name}}");
        let own = Content::Named(self.model(&self.kind));
        let list = Content::Named(self.model(&self.list_kind));
        let status = Content::Named(format!("{META}Status"));
        let maker = Maker { version: self, texts };
        let mut routes = vec![
            maker.route(&collection, "", Action::List, &list),
            maker.route(&collection, "", Action::Create, &own),
            maker.route(&collection, "", Action::DeleteCollection, &status),
            maker.route(&item, "", Action::Delete, &status),
        ];
        if self.namespaced {
            routes.push(maker.everywhere(&everywhere, &list));
        }
        let scale = Content::Named(SCALE.to_owned());
        let subs = [("", true, &own), ("status", self.status, &own), ("scale", self.scale, &scale)];
        for (sub, _, content) in subs.into_iter().filter(|(_, served, _)| *served) {
            let path = if sub.is_empty() { item.clone() } else { format!("{item}/{sub}") };
            for action in [Action::Read, Action::Replace, Action::Patch] {
                routes.push(maker.route(&path, sub, action, content));
            }
        }
        routes
    }

    /// Adds its definitions to `given`.
    pub fn define(
        &self,
        edition: Edition,
        definitions: &mut Definitions<'_>,
        texts: &Texts,
        given: &mut BTreeMap<String, Value>,
    ) {
        let mut own = self.object(edition, definitions, texts);
        let mut list = self.list(edition, definitions, texts);
        for (value, kind) in [(&mut own, &self.kind), (&mut list, &self.list_kind)] {
            value["x-kubernetes-group-version-kind"] =
                json!([{"group": self.group, "version": self.version, "kind": kind}]);
            if !self.selectable_fields.is_empty() {
                let field = |path: &String| json!({"fieldPath": path.strip_prefix('.').unwrap_or(path)});
                value["x-kubernetes-selectable-fields"] = self.selectable_fields.iter().map(field).collect();
            }
        }
        given.insert(self.model(&self.kind), own);
        given.insert(self.model(&self.list_kind), list);
    }

    /// The kind itself (upstream `buildKubeNative`).
    fn object(&self, edition: Edition, definitions: &mut Definitions<'_>, texts: &Texts) -> Value {
        let open = json!({"type": "object"});
        let Some(schema) = self.schema.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok())
        else {
            return open;
        };
        let unknown = self.preserve_unknown_fields || schema["x-kubernetes-preserve-unknown-fields"] == true;
        if edition == Edition::V2 && unknown {
            return open;
        }
        let mut own = structural::publish(&schema, edition);
        let meta = described(definitions.refer(OBJECT_META), texts.object_metadata(), edition);
        add_properties(&mut own, [("metadata", meta)]);
        add_properties(&mut own, type_meta(texts));
        structural::complete_embedded(&mut own, edition, &|| definitions_of_embedded(edition, texts));
        own
    }

    /// The list kind (upstream `buildListSchema`).
    fn list(&self, edition: Edition, definitions: &mut Definitions<'_>, texts: &Texts) -> Value {
        let items = json!({
            "type": "array",
            "items": edition.reference(&self.model(&self.kind)),
            "description": format!("List of {}. More info: {CONVENTIONS}", self.plural),
        });
        let meta = described(definitions.refer(LIST_META), texts.list_metadata(), edition);
        let mut list = json!({
            "type": "object",
            "description": format!("{} is a list of {}", self.list_kind, self.kind),
            "required": ["items"],
        });
        add_properties(&mut list, [("items", items), ("metadata", meta)]);
        add_properties(&mut list, type_meta(texts));
        list
    }
}

fn add_properties(value: &mut Value, properties: impl IntoIterator<Item = (&'static str, Value)>) {
    for (name, property) in properties {
        value["properties"][name] = property;
    }
}

fn type_meta(texts: &Texts) -> [(&'static str, Value); 2] {
    ["apiVersion", "kind"]
        .map(|field| (field, json!({"type": "string", "description": texts.of_type_meta(field)})))
}

/// A reference with a description beside it.
fn described(mut reference: Value, text: String, edition: Edition) -> Value {
    reference["description"] = text.into();
    if let (Edition::V3, Value::Object(map)) = (edition, &mut reference) {
        super::schema::wrap_reference(map);
    }
    reference
}

/// What every embedded object has.
fn definitions_of_embedded(edition: Edition, texts: &Texts) -> [(&'static str, Value); 3] {
    let text = |text: String| json!({"type": "string", "description": text});
    [
        (
            "apiVersion",
            text(format!(
                "apiVersion defines the versioned schema of this representation of an object. More info: \
                 {CONVENTIONS}#resources"
            )),
        ),
        (
            "kind",
            text(format!(
                "kind is a string value representing the type of this object. In CamelCase. More info: \
                 {CONVENTIONS}#types-kinds"
            )),
        ),
        ("metadata", described(edition.reference(OBJECT_META), texts.object_metadata(), edition)),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Action {
    List,
    Create,
    DeleteCollection,
    Read,
    Replace,
    Delete,
    Patch,
}

struct Maker<'a> {
    version: &'a CustomVersion,
    texts: &'a Texts,
}

impl Maker<'_> {
    fn route(&self, path: &str, sub: &str, action: Action, content: &Content) -> Route {
        let kind = &self.version.kind;
        let namespaced = if self.version.namespaced { "Namespaced" } else { "" };
        self.named(path, sub, action, content, &format!("{namespaced}{kind}{}", title(sub)))
    }

    fn everywhere(&self, path: &str, content: &Content) -> Route {
        self.named(path, "", Action::List, content, &format!("{}ForAllNamespaces", self.version.kind))
    }

    fn named(&self, path: &str, sub: &str, action: Action, content: &Content, operation: &str) -> Route {
        let kind = &self.version.kind;
        let of = if sub.is_empty() { String::new() } else { format!(" {sub} of") };
        let article = article(kind);
        let (method, name, verb, text) = match action {
            Action::List => ("get", "list", "list", format!("list{of} objects of kind {kind}")),
            Action::Create => ("post", "post", "create", format!("create{of}{article}{kind}")),
            Action::DeleteCollection => {
                ("delete", "deletecollection", "delete", format!("delete collection of{of} {kind}"))
            }
            Action::Read => ("get", "get", "read", format!("read{of} the specified {kind}")),
            Action::Replace => ("put", "put", "replace", format!("replace{of} the specified {kind}")),
            Action::Delete => ("delete", "delete", "delete", format!("delete{of}{article}{kind}")),
            Action::Patch => {
                ("patch", "patch", "patch", format!("partially update{of} the specified {kind}"))
            }
        };
        let operation = if action == Action::DeleteCollection {
            format!("collection{operation}")
        } else {
            operation.to_owned()
        };
        let mut route = Route::new(method, path, (verb, &operation), text);
        route.action = name;
        let version = self.version;
        route.kind =
            Some(GroupVersionKind::new(version.group.clone(), version.version.clone(), kind.clone()));
        route.consumes = vec!["application/json", "application/yaml"];
        route.produces = route.consumes.clone();
        if path.contains("{namespace}") {
            route.path_parameter("namespace", "the namespace of the object".to_owned());
        }
        if path.contains("{name}") {
            route.path_parameter("name", format!("name of the {kind}"));
        }
        route.pretty(self.texts);
        self.complete(&mut route, action, content);
        route
    }

    /// Options, body and answers.
    fn complete(&self, route: &mut Route, action: Action, content: &Content) {
        let (options, codes): (_, &[u16]) = match action {
            Action::List | Action::DeleteCollection => ("ListOptions", &[200]),
            Action::Create => ("CreateOptions", &[200, 201, 202]),
            Action::Read => ("GetOptions", &[200]),
            Action::Replace => ("UpdateOptions", &[200, 201]),
            Action::Delete => ("DeleteOptions", &[200, 202]),
            Action::Patch => ("PatchOptions", &[200]),
        };
        route.options(&format!("{META}{options}"), &[], self.texts);
        route.answers(content, codes);
        let own = match content {
            Content::Named(name) => name.clone(),
            Content::Text => String::new(),
        };
        route.body = match action {
            Action::Create | Action::Replace => Some((own, true)),
            Action::Patch => {
                route.consumes = vec![
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/apply-patch+yaml",
                ];
                Some((names::PATCH.to_owned(), true))
            }
            Action::Delete => Some((format!("{META}DeleteOptions"), false)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

    fn foo(schema: &str) -> CustomVersion {
        CustomVersion {
            group: "bar.k8s.io".to_owned(),
            version: "v1".to_owned(),
            kind: "Foo".to_owned(),
            list_kind: "FooList".to_owned(),
            plural: "foos".to_owned(),
            schema: Some(schema.to_owned()).filter(|schema| !schema.is_empty()),
            ..CustomVersion::default()
        }
    }

    fn definitions_of(version: &CustomVersion, edition: Edition) -> BTreeMap<String, Value> {
        let texts = Texts::load();
        let mut definitions = Definitions::new(edition, &texts);
        let mut given = BTreeMap::new();
        version.define(edition, &mut definitions, &texts, &mut given);
        given
    }

    fn without_descriptions(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.iter().filter(|(key, value)| *key != "description" || !value.is_string());
                kept.map(|(key, value)| (key.clone(), without_descriptions(value))).collect()
            }
            Value::Array(list) => list.iter().map(without_descriptions).collect(),
            value => value.clone(),
        }
    }

    // Cases of upstream's builder_test.go.
    #[test]
    fn version_2_of_a_kind_is_what_upstream_publishes() {
        let kind = || json!([{"group": "bar.k8s.io", "kind": "Foo", "version": "v1"}]);
        let open = || json!({"type": "object", "x-kubernetes-group-version-kind": kind()});
        let with = |more: Value| {
            let mut value = open();
            value["properties"] = json!({
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"$ref": format!("#/definitions/{OBJECT_META}")},
            });
            for (name, property) in more.as_object().into_iter().flatten() {
                value["properties"][name] = property.clone();
            }
            value
        };
        let either = r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}"#;
        let limited =
            r#"{"x-kubernetes-int-or-string":true,"anyOf":[{"minimum":42.0}],"allOf":[{"minimum":42.0}]}"#;
        let embedded = r#"{"x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true,"type":"object"}"#;
        let preserving = r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true}"#;
        let rich = format!(
            r#"{{"type":"object","properties":{{"a":{either},"b":{limited},"c":{{"x-kubernetes-preserve-unknown-fields":true}},"d":{embedded}}}}}"#
        );
        for (schema, expected) in [
            ("", open()),
            (r#"{"type":"object"}"#, with(json!({}))),
            (
                r#"{"type":"object","properties":{"spec":{"type":"object"},"status":{"type":"object"}}}"#,
                with(json!({"spec": {"type": "object"}, "status": {"type": "object"}})),
            ),
            (preserving, open()),
            (
                rich.as_str(),
                with(json!({
                    "a": {"x-kubernetes-int-or-string": true},
                    "b": {"x-kubernetes-int-or-string": true},
                    "c": {"x-kubernetes-preserve-unknown-fields": true},
                    "d": {"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                })),
            ),
        ] {
            let given = definitions_of(&foo(schema), Edition::V2);
            assert_eq!(without_descriptions(&given["io.k8s.bar.v1.Foo"]), expected, "{schema}");
            let items = &given["io.k8s.bar.v1.FooList"]["properties"]["items"]["items"];
            assert_eq!(*items, json!({"$ref": "#/definitions/io.k8s.bar.v1.Foo"}));
        }
    }

    #[test]
    fn version_3_of_a_kind_keeps_what_is_unknown_and_what_can_be_selected() {
        let mut version = foo(r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true}"#);
        version.selectable_fields = vec![".spec.color".to_owned()];
        let given = definitions_of(&version, Edition::V3);
        let own = &given["io.k8s.bar.v1.Foo"];
        assert_eq!(own["x-kubernetes-preserve-unknown-fields"], true);
        assert_eq!(
            own["properties"]["metadata"]["allOf"],
            json!([{"$ref": format!("#/components/schemas/{OBJECT_META}")}])
        );
        assert_eq!(own["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    }

    #[test]
    fn routes_follow_scope_and_subresources() {
        let texts = Texts::load();
        let ids = |version: &CustomVersion| {
            let mut ids: Vec<String> = version.routes(&texts).into_iter().map(|route| route.id).collect();
            ids.sort();
            ids
        };
        let plain = [
            "createBarV1Foo",
            "deleteBarV1CollectionFoo",
            "deleteBarV1Foo",
            "listBarV1Foo",
            "patchBarV1Foo",
            "readBarV1Foo",
            "replaceBarV1Foo",
        ];
        assert_eq!(ids(&foo("")), plain);
        let namespaced = CustomVersion { namespaced: true, scale: true, ..foo("") };
        let found = ids(&namespaced);
        assert_eq!(found.len(), plain.len() + 4);
        assert!(found.contains(&"listBarV1FooForAllNamespaces".to_owned()), "{found:?}");
        assert!(found.contains(&"patchBarV1NamespacedFooScale".to_owned()), "{found:?}");
    }
}
