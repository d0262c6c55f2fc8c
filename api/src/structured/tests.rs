//! The tables of structured-merge-diff's own tests (`typed/*_test.go`, `merge/*_test.go`).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::element::same_values;
use super::testing::{Named, schemas};
use super::*;

fn rows(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON"))
}

fn set(value: &Value) -> Set {
    Set::decode(value).expect("well formed")
}

#[test]
fn values_are_treated_as_upstream_treats_them() {
    let schemas = schemas();
    let mut count = 0;
    for row in rows(include_str!("cases/typed.jsonl")) {
        let shape =
            schemas[row["schema"].as_str().expect("a schema")].shape(row["root"].as_str().expect("a root"));
        typed(shape, &row);
        count += 1;
    }
    assert!(count >= 290, "{count} cases");
}

fn typed(shape: Shape<'_>, row: &Value) {
    match row["do"].as_str() {
        Some("check") => {
            let refused = check(shape, &row["value"], Duplicates::Refused).is_err();
            let allowed = check(shape, &row["value"], Duplicates::Allowed).is_err();
            let (want_refused, want_allowed) = match row["expect"].as_str() {
                Some("valid") => (false, false),
                Some("duplicates") => (true, false),
                _ => (true, true),
            };
            assert_eq!((refused, allowed), (want_refused, want_allowed), "{row}");
        }
        Some("fields") => assert_eq!(field_set(shape, &row["value"]), set(&row["set"]), "{row}"),
        Some("merge") => {
            let merged = merge(shape, &row["live"], &row["config"]).expect("they merge");
            assert!(same_values(&merged, &row["out"]), "{row}\ngives {merged}");
        }
        Some("compare") => {
            let found = compare(shape, &row["old"], &row["new"]).expect("they compare");
            assert_eq!(found.removed, set(&row["removed"]), "{row}");
            assert_eq!(found.modified, set(&row["modified"]), "{row}");
            assert_eq!(found.added, set(&row["added"]), "{row}");
            let back = compare(shape, &row["new"], &row["old"]).expect("they compare");
            assert_eq!(
                (back.added, back.modified, back.removed),
                (found.removed, found.modified, found.added)
            );
        }
        Some("remove") => {
            let left = remove_items(shape, &row["value"], &set(&row["set"]));
            assert!(same_values(&left, &row["out"]), "{row}\ngives {left}");
        }
        Some("reconcile") => {
            let fixed = reconcile(shape, &set(&row["set"]));
            assert_eq!(fixed, (!row["out"].is_null()).then(|| set(&row["out"])), "{row}");
        }
        other => panic!("{other:?}"),
    }
}

/// Objects of one type in all versions, which are all the same.
struct OneType<'s> {
    shape: Shape<'s>,
    ignored: HashMap<String, Filter>,
}

impl Converter for OneType<'_> {
    fn shape(&self, _: &str) -> Option<Shape<'_>> {
        Some(self.shape)
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn filter(&self, version: &str) -> Option<&Filter> {
        self.ignored.get(version)
    }
}

struct State<'s> {
    schemas: &'s HashMap<String, Named>,
    converter: OneType<'s>,
    live: Value,
    managers: Managers<String>,
}

impl<'s> State<'s> {
    fn new(schemas: &'s HashMap<String, Named>, case: &Value) -> Self {
        let ignored = case["ignored"].as_object().into_iter().flatten();
        let ignored = ignored.map(|(version, fields)| (version.clone(), Filter::Exclude(set(fields))));
        let shape = Self::shape(schemas, &case["schema"]);
        let converter = OneType { shape, ignored: ignored.collect() };
        Self { schemas, converter, live: Value::Null, managers: Managers::new() }
    }

    fn shape(schemas: &'s HashMap<String, Named>, name: &Value) -> Shape<'s> {
        match name.as_str() {
            Some("DeducedParser") => Shape::Deduced,
            Some(name) => schemas[name].root(),
            None => panic!("no schema"),
        }
    }

    fn run(&mut self, op: &Value) -> Result<(), String> {
        let (kind, object) = (op["op"].as_str().expect("a kind"), &op["object"]);
        if kind == "ChangeParser" {
            self.converter.shape = Self::shape(self.schemas, &op["schema"]);
            return check(self.converter.shape, &self.live, Duplicates::Refused).map_err(|e| e.to_string());
        }
        let duplicates = if kind == "Update" { Duplicates::Allowed } else { Duplicates::Refused };
        check(self.converter.shape, object, duplicates).map_err(|e| e.to_string())?;
        let (manager, version) = (
            op["manager"].as_str().expect("a manager").to_owned(),
            op["version"].as_str().expect("a version"),
        );
        let updater = Updater { converter: &self.converter };
        let managers = self.managers.clone();
        if kind == "Update" {
            self.managers = updater
                .update(&self.live, object, version, managers, &manager)
                .map_err(|failure| format!("{failure:?}"))?;
            self.live = object.clone();
            return Ok(());
        }
        let force = kind == "ForceApply";
        let outcome = updater.apply(&self.live, object, version, managers, &manager, force);
        let mut conflicts = json!([]);
        match outcome {
            Ok((new, managers)) => {
                self.managers = managers;
                self.live = new.unwrap_or_else(|| self.live.clone());
            }
            Err(Failure::Conflicts(found)) => {
                let mut found: Vec<Value> =
                    found.iter().map(|c| json!([c.manager, c.path.to_string()])).collect();
                found.sort_by_key(Value::to_string);
                conflicts = Value::Array(found);
            }
            Err(Failure::Other(why)) => return Err(why),
        }
        let wanted = op.get("conflicts").cloned().unwrap_or(json!([]));
        if conflicts == wanted { Ok(()) } else { Err(format!("conflicts {conflicts}, not {wanted}")) }
    }

    fn check(&self, case: &Value) {
        let name = format!("{} {}", case["test"], case["name"]);
        if let Some(object) = case.get("object") {
            assert!(same_values(&self.live, object), "{name}: {}\nnot {object}", self.live);
        }
        if let Some(managed) = case["managed"].as_object() {
            let shown = |(manager, owned): (&String, &Versioned)| {
                (manager.clone(), owned.version.clone(), owned.set.encode())
            };
            let found: Vec<_> = self.managers.iter().map(shown).collect();
            let mut wanted: Vec<_> = managed
                .iter()
                .map(|(manager, owned)| {
                    let version = owned["version"].as_str().expect("a version").to_owned();
                    (manager.clone(), version, set(&owned["fields"]).encode())
                })
                .collect();
            wanted.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(found, wanted, "{name}");
        }
        assert!(self.managers.values().all(|owned| !owned.set.is_empty()), "{name}");
    }
}

#[test]
fn owners_are_those_upstream_finds() {
    let schemas = schemas();
    let mut count = 0;
    for case in rows(include_str!("cases/updater.jsonl")) {
        let mut state = State::new(&schemas, &case);
        let outcome = case["ops"].as_array().expect("operations").iter().try_for_each(|op| state.run(op));
        if case["fails"] == true {
            assert!(outcome.is_err(), "{} {}", case["test"], case["name"]);
        } else {
            outcome.unwrap_or_else(|why| panic!("{} {}: {why}", case["test"], case["name"]));
            state.check(&case);
        }
        count += 1;
    }
    assert!(count > 90, "{count} cases");
}

#[test]
fn sets_survive_their_wire_form() {
    let wire = json!({
        "f:metadata": {"f:finalizers": {".": {}, "v:\"a<b\"": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:x": {}, "f:y": {"i:3": {}}},
    });
    let decoded = set(&wire);
    let escaped = wire.to_string().replace("a<b", "a\\\\u003cb");
    assert_eq!(decoded.encode().to_string(), escaped);
    assert_eq!(set(&decoded.encode()), decoded);
    // Steps of unknown kinds are left out, malformed ones are an error.
    assert_eq!(set(&json!({"f:a": {}, "x:y": {}})), set(&json!({"f:a": {}})));
    for bad in [
        json!({"f": {}}),
        json!({"fa": {}}),
        json!({"v:": {}}),
        json!({"k:1": {}}),
        json!({"f:a": 1}),
        json!([]),
    ] {
        assert!(Set::decode(&bad).is_err(), "{bad}");
    }
}

#[test]
fn operations_are_those_of_sets() {
    let a = set(&json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}));
    let b = set(&json!({"f:a": {"f:b": {}}, "f:e": {}}));
    assert_eq!(a.clone().difference(&b).encode(), json!({"f:a": {".": {}, "f:c": {}}, "f:d": {}}));
    assert_eq!(a.intersection(&b).encode(), json!({"f:a": {"f:b": {}}}));
    let both = json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}, "f:e": {}});
    assert_eq!(a.clone().union(b.clone()).encode(), both);
    let whole = Set::of_fields(&[&["a"]]);
    assert_eq!(a.clone().difference(&whole).encode(), json!({"f:a": {"f:b": {}, "f:c": {}}, "f:d": {}}));
    assert_eq!(a.clone().recursive_difference(&whole).encode(), json!({"f:d": {}}));
    let paths: Vec<String> = a.paths().iter().map(ToString::to_string).collect();
    assert_eq!(paths, [".a", ".d", ".a.b", ".a.c"]);
}

#[test]
fn steps_are_ordered_by_value() {
    let key = |port: Value| Element::key(vec![("port".into(), port), ("name".into(), "a".into())]);
    assert_eq!(key(json!(80)), key(json!(80.0)));
    assert!(key(json!(9)) < key(json!(80)));
    assert!(Element::field("z") < key(json!(1)) && key(json!(1)) < Element::Value(json!(1)));
    assert_eq!(key(json!(80.0)).to_string(), "[name=\"a\",port=80]");
    assert_eq!(key(json!(80.0)).encode(), "k:{\"name\":\"a\",\"port\":80}");
}
