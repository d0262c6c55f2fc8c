//! What mutating policies write patches with: objects made without knowing their schema, and JSON patches.

use crate::cel::eval::Fault;
use crate::cel::function::{Function, function, plain};
use crate::cel::ty::Type;
use crate::cel::value::{Map, Object, Value};
use crate::schema::scalar::go_quote;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[function(
    "jsonpatch.escapeKey",
    &[plain("string_jsonpatch_escapeKey_string", "string -> string")],
    |_, args| Ok(Value::text(args[0].as_str().unwrap_or_default().replace('~', "~0").replace('/', "~1"))),
)];

const PATCH: &str = "JSONPatch";
const OBJECT: &str = "Object";

/// Whether objects of a type of this name can be made.
pub(crate) fn is_constructible(name: &str) -> bool {
    name == PATCH || name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'))
}

/// The type of a field of such an object.
pub(crate) fn field_type(name: &str, field: &str) -> Option<Type> {
    match (name, field) {
        (PATCH, "op" | "path" | "from") => Some(Type::String),
        (PATCH, "value") => Some(Type::Dyn),
        (PATCH, _) => None,
        _ => Some(Type::Dyn),
    }
}

impl Object<'_> {
    /// Whether the types of all objects within are named after the fields they stand in: `Object.spec` in `spec`.
    ///
    /// # Errors
    /// With each one that is not, a line each.
    pub fn check_type_names(&self) -> Result<(), Fault> {
        let mut wrong = Vec::new();
        check_object(self, &self.type_name, &mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(Fault::new(wrong.join("\n"))) }
    }
}

fn check_object(object: &Object<'_>, path: &str, wrong: &mut Vec<String>) {
    if *object.type_name != *path {
        let (found, expected) = (go_quote(&object.type_name), go_quote(path));
        wrong.push(format!(
            "unexpected type name {found}, expected {expected}, which matches field name path from root Object type"
        ));
    }
    for (name, value) in &object.fields {
        check_value(value, &format!("{path}.{name}"), wrong);
    }
}

fn check_value(value: &Value<'_>, path: &str, wrong: &mut Vec<String>) {
    match value {
        Value::Object(object) => check_object(object, path, wrong),
        Value::List(list) => list.iter().flatten().for_each(|item| check_value(&item, path, wrong)),
        Value::Map(Map::Values(entries)) => {
            entries.iter().for_each(|(_, value)| check_value(value, path, wrong))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cel::{Bindings, Environment, Limits, Value};

    #[test]
    fn objects_are_made_without_a_schema() {
        let env = Environment::kubernetes().with_patches();
        let cases = [
            ("Object{spec: Object.spec{replicas: 3}}", Ok(json!({"spec": {"replicas": 3}}))),
            (
                "Object{spec: Object.spec{a: [Object.spec.a{b: 'c'}]}}",
                Ok(json!({"spec": {"a": [{"b": "c"}]}})),
            ),
            ("Object{?spec: optional.none()}", Ok(json!({}))),
            (
                "Object{spec: Object.status{}}",
                Err(
                    "unexpected type name \"Object.status\", expected \"Object.spec\", which matches field name path \
                     from root Object type",
                ),
            ),
            (
                "JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y~'), value: 1}",
                Ok(json!({"op": "add", "path": "/a/x~1y~0", "value": 1})),
            ),
        ];
        for (expression, want) in cases {
            let checked = env.compile(expression).expect(expression);
            let outcome =
                env.program(&checked).expect("a program").evaluate(&Bindings::new(), Limits::default());
            let Ok(Value::Object(object)) = outcome.value else { panic!("{expression} is an object") };
            let found = object.check_type_names().and_then(|()| Value::Object(object).to_json());
            assert_eq!(found.map_err(|fault| fault.to_string()), want.map_err(str::to_owned), "{expression}");
        }
        for wrong in ["JSONPatch{ob: 'add'}", "JSONPatch{op: 1}", "Other{}"] {
            assert!(env.compile(wrong).is_err(), "{wrong}");
        }
        assert!(Environment::kubernetes().compile("Object{}").is_err());
    }
}
