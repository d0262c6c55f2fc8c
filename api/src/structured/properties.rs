//! Laws of apply and update, over random objects of a type with every kind of list and map.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::element::same_values;
use super::testing::{Named, schemas};
use super::*;

struct OneType<'s>(Shape<'s>);

impl Converter for OneType<'_> {
    fn shape(&self, _: &str) -> Option<Shape<'_>> {
        Some(self.0)
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn filter(&self, _: &str) -> Option<&Filter> {
        None
    }
}

/// Objects of upstream's `nestedType`.
fn object() -> impl Strategy<Value = Value> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let texts = || prop::collection::btree_set(name(), 0..4).prop_map(|set| json!(set));
    let text_map = || prop::collection::btree_map(name(), name(), 0..4).prop_map(|map| json!(map));
    let lists = prop::collection::btree_map(name(), texts(), 0..4).prop_map(|map| {
        Value::Array(map.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
    });
    let list_of_maps = prop::collection::btree_map(name(), text_map(), 0..4).prop_map(|map| {
        Value::Array(map.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
    });
    let map_of_lists = prop::collection::btree_map(name(), texts(), 0..4).prop_map(|map| json!(map));
    let map_of_maps = prop::collection::btree_map(name(), text_map(), 0..4).prop_map(|map| json!(map));
    let some = |value: BoxedStrategy<Value>| prop::option::of(value);
    let fields = (
        some(lists.boxed()),
        some(list_of_maps.boxed()),
        some(map_of_lists.boxed()),
        some(map_of_maps.boxed()),
    );
    fields.prop_map(|(lists, maps, of_lists, of_maps)| {
        let names = ["listOfLists", "listOfMaps", "mapOfLists", "mapOfMaps"];
        let values = [lists, maps, of_lists, of_maps];
        let fields =
            names.into_iter().zip(values).filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect::<Map<_, _>>())
    })
}

type State = (Value, Managers<String>);

fn apply(schema: &Named, state: &State, config: &Value, manager: &str) -> Result<State, Failure<String>> {
    let converter = OneType(schema.root());
    let updater = Updater { converter: &converter };
    let managers = state.1.clone();
    let (new, managers) = updater.apply(&state.0, config, "v1", managers, &manager.to_owned(), true)?;
    Ok((new.unwrap_or_else(|| state.0.clone()), managers))
}

fn update(schema: &Named, state: &State, new: &Value, manager: &str) -> Result<State, Failure<String>> {
    let converter = OneType(schema.root());
    let updater = Updater { converter: &converter };
    let managers = updater.update(&state.0, new, "v1", state.1.clone(), &manager.to_owned())?;
    Ok((new.clone(), managers))
}

fn nested() -> Named {
    schemas().remove("nestedTypeParser").expect("the schema")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Applying the same configuration again changes neither the object nor its owners.
    #[test]
    fn apply_is_idempotent(first in object(), config in object()) {
        let schema = nested();
        let state = update(&schema, &(json!({}), Managers::new()), &first, "u").expect("it compares");
        let once = apply(&schema, &state, &config, "a").expect("forced");
        let twice = apply(&schema, &once, &config, "a").expect("forced");
        prop_assert_eq!(once, twice);
    }

    /// After an apply the object says everything that was applied, and its fields are the manager's.
    #[test]
    fn what_is_applied_is_there_and_owned(first in object(), config in object()) {
        let schema = nested();
        let shape = schema.root();
        let state = update(&schema, &(json!({}), Managers::new()), &first, "u").expect("it compares");
        let (object, managers) = apply(&schema, &state, &config, "a").expect("forced");
        let applied = field_set(shape, &config);
        let owned = managers.get("a").map(|owned| owned.set.clone()).unwrap_or_default();
        prop_assert_eq!(&owned, &applied);
        prop_assert!(same_values(&merge(shape, &object, &config).expect("they merge"), &object));
    }

    /// A manager that applies nothing any more leaves what others own, and owns nothing.
    #[test]
    fn letting_go_leaves_what_others_own(mine in object(), theirs in object()) {
        let schema = nested();
        let shape = schema.root();
        let state = apply(&schema, &(json!({}), Managers::new()), &theirs, "b").expect("forced");
        let state = apply(&schema, &state, &mine, "a").expect("forced");
        let others = state.1.get("b").map(|owned| owned.set.clone()).unwrap_or_default();
        let (object, managers) = apply(&schema, &state, &json!({}), "a").expect("forced");
        prop_assert!(!managers.contains_key("a"));
        let left = managers.get("b").map(|owned| owned.set.clone()).unwrap_or_default();
        prop_assert!(others.clone().difference(&left).is_empty(), "lost {:?}", others.clone().difference(&left).encode());
        let there = field_set(shape, &object);
        let leaves = |set: &Set| set.paths().into_iter().filter(|path| set_has_no_more(set, path)).collect::<Vec<_>>();
        for path in leaves(&others) {
            prop_assert!(there.contains(&path.0), "{path} is gone from {object}");
        }
    }

    /// Every leaf of an object that was only ever applied and updated has an owner.
    #[test]
    fn nothing_is_without_an_owner(first in object(), config in object(), second in object()) {
        let schema = nested();
        let shape = schema.root();
        let state = update(&schema, &(json!({}), Managers::new()), &first, "u").expect("it compares");
        let state = apply(&schema, &state, &config, "a").expect("forced");
        let (object, managers) = update(&schema, &state, &second, "w").expect("it compares");
        let owned = managers.values().fold(Set::default(), |all, owned| all.union(owned.set.clone()));
        for path in field_set(shape, &object).paths() {
            let value_is_empty = object_at_is_empty(&object, &path);
            prop_assert!(value_is_empty || owned.contains(&path.0), "{path} of {object} is nobody's");
        }
    }

    /// A set is its wire form.
    #[test]
    fn sets_come_back_from_the_wire(value in object()) {
        let schema = nested();
        let set = field_set(schema.root(), &value);
        prop_assert_eq!(&Set::decode(&set.encode()).expect("well formed"), &set);
    }

    /// What differs is what one comparison adds and the other removes; sets obey their laws.
    #[test]
    fn sets_obey_their_laws(a in object(), b in object()) {
        let schema = nested();
        let shape = schema.root();
        let (x, y) = (field_set(shape, &a), field_set(shape, &b));
        prop_assert_eq!(x.clone().union(y.clone()), y.clone().union(x.clone()));
        prop_assert_eq!(x.intersection(&y), y.intersection(&x));
        prop_assert_eq!(x.clone().difference(&y).union(x.intersection(&y)), x.clone());
        prop_assert!(x.clone().difference(&y).intersection(&y).is_empty());
        prop_assert!(x.clone().recursive_difference(&y).difference(&x.clone().difference(&y)).is_empty());
        prop_assert_eq!(x.len() + y.len(), x.clone().union(y.clone()).len() + x.intersection(&y).len());
    }
}

/// Whether nothing of the set stands below a path.
fn set_has_no_more(set: &Set, path: &Path) -> bool {
    let below = path.0.iter().try_fold(set, |set, step| set.below(step));
    below.is_none()
}

/// Containers without anything in them have no leaf of their own to own.
fn object_at_is_empty(object: &Value, path: &Path) -> bool {
    let mut at = object;
    for step in &path.0 {
        at = match step {
            Element::Field(name) => &at[name.as_str()],
            Element::Key(fields) => {
                let found = at.as_array().and_then(|items| {
                    items.iter().find(|item| fields.iter().all(|(name, value)| item[name.as_str()] == *value))
                });
                match found {
                    Some(item) => item,
                    None => return false,
                }
            }
            _ => return false,
        };
    }
    at.as_object().is_some_and(Map::is_empty) || at.as_array().is_some_and(Vec::is_empty)
}
