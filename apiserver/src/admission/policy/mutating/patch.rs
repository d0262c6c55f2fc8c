//! Mutations: apply configurations and JSON patches that expressions make (upstream `policy/mutating/patch`).

use api::cel::Value;
use api::cel::admission::{BUDGET, Compiled, Compiler, Evaluation, Input, Returns, Scope};
use api::names::GroupVersionKind;
use api::patch::{self, JsonPatch};
use api::schema::{self, TypeRef};
use api::status::ApiError;
use api::structured::{self, Duplicates, Shape};
use k8s_openapi::api::admissionregistration::v1::Mutation;
use serde_json::{Map, Value as Json, json};

use crate::object;
use crate::registry::Custom;

/// One mutation of a policy, compiled.
pub(super) enum Patcher {
    /// An object to be merged in.
    Apply(Compiled),
    /// A list of operations.
    Json(Compiled),
}

/// Why an object was not mutated.
pub(super) enum Failure {
    /// It is for the policy to say what follows.
    Policy(String),
    /// The request fails, whatever the policy says.
    Request(ApiError),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Policy(why)
    }
}

/// The kind of objects that are mutated.
#[derive(Clone, Copy)]
pub(super) struct Target<'t> {
    pub kind: &'t GroupVersionKind,
    pub custom: Option<&'t Custom>,
}

impl<'t> Target<'t> {
    fn ty(self) -> Result<TypeRef<'t>, Failure> {
        let found = match self.custom {
            Some(custom) => Some(custom.version.ty()),
            None => schema::type_for(self.kind),
        };
        found.ok_or_else(|| {
            Failure::Request(ApiError::unavailable(format!(
                "Resource kind {} not found. There can be a delay between when CustomResourceDefinitions are created \
                 and when they are available.",
                self.kind
            )))
        })
    }

    /// A mutated object as one that was sent: normalised and defaulted. `strict`: unknown fields are refused.
    fn decode(self, value: Json, strict: bool) -> Result<Json, Failure> {
        let broken = |why: &dyn std::fmt::Display| Failure::Request(ApiError::internal(why));
        if let Some(custom) = self.custom {
            let (value, _) = custom.version.read(value).map_err(|why| broken(&why))?;
            return Ok(value);
        }
        let decoded = self.ty()?.decode_value(value).map_err(|why| broken(&why))?;
        if strict && !decoded.strict_errors.is_empty() {
            return Err(broken(&schema::strict_message(&decoded.strict_errors)));
        }
        let mut value = decoded.value;
        object::set_kind(&mut value, self.kind);
        api::defaults::apply(self.kind, &mut value);
        Ok(value)
    }
}

impl Patcher {
    /// Compiles a mutation; `None` if it says nothing.
    pub fn compile(compiler: &mut Compiler, mutation: &Mutation, scope: Scope) -> Option<Self> {
        let scope = Scope { patches: true, ..scope };
        let mut compile = |expression: &Option<String>, returns| {
            compiler.compile(expression.as_deref().unwrap_or_default(), returns, scope)
        };
        match mutation.patch_type.as_str() {
            "JSONPatch" => {
                let patch = mutation.json_patch.as_ref()?;
                Some(Self::Json(compile(&patch.expression, Returns::Patches)))
            }
            "ApplyConfiguration" => {
                let patch = mutation.apply_configuration.as_ref()?;
                Some(Self::Apply(compile(&patch.expression, Returns::Object)))
            }
            _ => None,
        }
    }

    /// The object of `input`, mutated.
    pub fn patch(
        &self,
        input: Input<'_>,
        variables: &[(String, Compiled)],
        target: Target<'_>,
    ) -> Result<Json, Failure> {
        target.ty()?;
        let (Self::Apply(compiled) | Self::Json(compiled)) = self;
        if let Err(why) = &compiled.program {
            return Err(why.to_string().into());
        }
        let live = input.object;
        let mut evaluation = Evaluation::new(input, variables, BUDGET);
        let value = evaluation.evaluate(compiled).map_err(|over| over.to_string())??;
        match self {
            Self::Apply(_) => apply(&value, live, target),
            Self::Json(_) => json_patch(&value, live, target),
        }
    }
}

/// Merges an object into another, as server-side apply does. Nobody becomes the owner of the fields.
fn apply(value: &Value<'_>, live: &Json, target: Target<'_>) -> Result<Json, Failure> {
    let mut config = object_of(value)?;
    object::set_kind(&mut config, target.kind);
    let shape = Shape::of_type(target.ty()?);
    let merged = merge(shape, live, &config).map_err(|why| format!("error applying patch: {why}"))?;
    target.decode(merged, false)
}

fn merge(shape: Shape<'_>, live: &Json, config: &Json) -> Result<Json, String> {
    structured::check(shape, config, Duplicates::Refused)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomic = structured::atomic_paths(shape, config);
    if !atomic.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomic.join(", ")
        ));
    }
    structured::check(shape, live, Duplicates::Allowed)
        .map_err(|why| format!("failed to convert original object to typed object: {why}"))?;
    structured::merge(shape, live, config).map_err(|why| format!("failed to merge patch: {why}"))
}

/// An object that an expression has constructed, whose types are named after where they stand.
fn object_of(value: &Value<'_>) -> Result<Json, String> {
    if let Value::Object(object) = value {
        object.check_type_names().map_err(|why| format!("type mismatch: {why}"))?;
    }
    value.to_json().map_err(|why| why.to_string())
}

fn json_patch(value: &Value<'_>, live: &Json, target: Target<'_>) -> Result<Json, Failure> {
    let mismatch = |found: &dyn std::fmt::Display| {
        format!("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch: {found}")
    };
    let Value::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned().into());
    };
    let mut operations = Vec::with_capacity(list.len());
    for item in list.iter() {
        match item.map_err(|why| mismatch(&why))? {
            Value::Object(object) => operations.push(operation(&object.fields)?),
            other => return Err(mismatch(&other.type_of()).into()),
        }
    }
    let broken = |why: patch::Error| Failure::Policy(format!("JSON Patch: {why}"));
    let patch = JsonPatch::decode(Json::from(operations).to_string().as_bytes()).map_err(broken)?.patch;
    match patch.apply(live) {
        Ok(patched) => target.decode(patched, true),
        // The patch makes itself depend on it.
        Err(patch::Error::TestFailed(_)) => target.decode(live.clone(), false),
        Err(error) => Err(broken(error)),
    }
}

/// One operation as JSON.
fn operation(fields: &[(String, Value<'_>)]) -> Result<Json, String> {
    let mut operation = Map::new();
    let text = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.and_then(|(_, value)| value.as_str()).unwrap_or_default().to_owned()
    };
    operation.insert("op".to_owned(), text("op").into());
    operation.insert("path".to_owned(), text("path").into());
    let from = text("from");
    if !from.is_empty() {
        operation.insert("from".to_owned(), from.into());
    }
    if let Some((_, value)) = fields.iter().find(|(field, _)| field == "value") {
        let unfit = |why| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}")
        };
        let value = match value {
            Value::Object(_) => object_of(value)?,
            other => other.to_json().map_err(unfit)?,
        };
        operation.insert("value".to_owned(), value);
    }
    Ok(json!(operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, expression: &str, object: &Json) -> Result<Json, String> {
        let mutation = match kind {
            "JSONPatch" => json!({"patchType": kind, "jsonPatch": {"expression": expression}}),
            _ => json!({"patchType": kind, "applyConfiguration": {"expression": expression}}),
        };
        let mutation: Mutation = serde_json::from_value(mutation).expect("a mutation");
        let mut compiler = Compiler::composed();
        let patcher = Patcher::compile(&mut compiler, &mutation, Scope::default()).expect("a patcher");
        let input = Input {
            object,
            old_object: &Json::Null,
            params: &Json::Null,
            request: &Json::Null,
            namespace: &Json::Null,
            authorizer: None,
        };
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        patcher.patch(input, &[], Target { kind: &kind, custom: None }).map_err(|failure| match failure {
            Failure::Policy(why) => why,
            Failure::Request(error) => format!("{} {}", error.code(), error.message()),
        })
    }

    fn deployment() -> Json {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "1"}}, "template": {"metadata": {"labels":
            {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}}})
    }

    #[test]
    fn configurations_are_merged() {
        let expression = "Object{metadata: Object.metadata{labels: {'b': '2'}}, spec: Object.spec{template: \
            Object.spec.template{spec: Object.spec.template.spec{containers: \
            [Object.spec.template.spec.containers{name: 'd', image: 'k'}]}}}}";
        let made = run("ApplyConfiguration", expression, &deployment()).expect("an object");
        assert_eq!(made["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        let containers = &made["spec"]["template"]["spec"]["containers"];
        let images: Vec<_> =
            containers.as_array().into_iter().flatten().map(|c| c["image"].clone()).collect();
        assert_eq!(images, ["i", "k"]);
        assert_eq!(containers[0]["imagePullPolicy"], "Always");
    }

    #[test]
    fn configurations_must_fit() {
        let cases = [
            (
                "Object{spec: Object.status{}}",
                "type mismatch: unexpected type name \"Object.status\", expected \"Object.spec\", which matches field \
                 name path from root Object type",
            ),
            (
                "Object{spec: Object.spec{nothing: 1}}",
                "error applying patch: failed to convert patch object to typed object: .spec.nothing: field not \
                 declared in schema",
            ),
            (
                "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'x': 'y'}}}}",
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                 .spec.selector",
            ),
            (
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
                 [Object.spec.template.spec.containers{name: 'c', command: ['x']}]}}}}",
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                 .spec.template.spec.containers[0].command",
            ),
            (
                "Object{spec: object.spec.x}",
                "expression 'Object{spec: object.spec.x}' resulted in error: no such key: x",
            ),
        ];
        for (expression, wanted) in cases {
            assert_eq!(run("ApplyConfiguration", expression, &deployment()).err().as_deref(), Some(wanted));
        }
    }

    #[test]
    fn json_patches_are_carried_out() {
        let labels = |patch: &str| {
            run("JSONPatch", patch, &deployment()).map(|made| made["metadata"]["labels"].clone())
        };
        let cases = [
            (
                "[JSONPatch{op: 'add', path: '/metadata/labels/b', value: 'x'}]",
                Ok(json!({"a": "1", "b": "x"})),
            ),
            (
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('e.com/k'), value: 'x'}]",
                Ok(json!({"a": "1", "e.com/k": "x"})),
            ),
            (
                "[JSONPatch{op: 'test', path: '/metadata/labels/a', value: '2'}, \
                 JSONPatch{op: 'remove', path: '/metadata/labels/a'}]",
                Ok(json!({"a": "1"})),
            ),
            (
                "[JSONPatch{op: 'move', from: '/metadata/labels/a', path: '/metadata/labels/c'}]",
                Ok(json!({"c": "1"})),
            ),
            (
                "[JSONPatch{op: 'remove', path: '/metadata/labels/z'}]",
                Err(
                    "JSON Patch: error in remove for path: '/metadata/labels/z': Unable to remove nonexistent key: z: \
                     missing value",
                ),
            ),
            (
                "[JSONPatch{op: 'add', path: '/spec/nothing', value: 1}]",
                Err("500 Internal error occurred: strict decoding error: unknown field \"spec.nothing\""),
            ),
            (
                "[JSONPatch{op: 'replace', path: '/spec/template', value: Object.spec.template{spec: Object.spec{}}}]",
                Err(
                    "type mismatch: unexpected type name \"Object.spec\", expected \"Object.spec.template.spec\", which \
                     matches field name path from root Object type",
                ),
            ),
            ("object", Err("must evaluate to list(JSONPatch) but got dyn")),
        ];
        for (patch, wanted) in cases {
            assert_eq!(labels(patch), wanted.map_err(str::to_owned), "{patch}");
        }
    }
}
