//! Who has set which field: `metadata.managedFields` (upstream `apimachinery/pkg/util/managedfields`).
//!
//! [`update`] records what a create, update or patch has changed. Server-side apply stands on the same sets.

pub mod compare;
pub mod set;

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

pub use compare::{Comparison, compare};
pub use set::{Element, Set};

use crate::schema::TypeRef;

/// More managers by update than this are merged into one, the oldest first.
const MAX_UPDATERS: usize = 10;
/// The manager they are merged into.
const ANCIENT: &str = "ancient-changes";
/// Fields that nobody owns.
const UNOWNED: [&[&str]; 11] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
];

/// Who changes an object, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manager<'a> {
    /// Name of the manager.
    pub name: &'a str,
    /// The `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource of the request; empty for none.
    pub subresource: &'a str,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// The version that the fields are of.
    pub api_version: String,
    /// Subresource; empty for none.
    pub subresource: String,
    /// When the entry last changed; empty for unknown.
    pub time: String,
    /// The fields.
    pub fields: Set,
}

impl Entry {
    fn decode(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let operation = text("operation");
        if !matches!(operation.as_str(), "Apply" | "Update") || text("apiVersion").is_empty() {
            return None;
        }
        let fields = match &value["fieldsV1"] {
            Value::Null => Set::default(),
            fields => Set::decode(fields)?,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn encode(&self) -> Value {
        let mut map = Map::new();
        for (name, text) in [
            ("manager", &self.manager),
            ("operation", &self.operation),
            ("apiVersion", &self.api_version),
            ("time", &self.time),
        ] {
            if !text.is_empty() {
                map.insert(name.to_owned(), json!(text));
            }
        }
        map.insert("fieldsType".to_owned(), json!("FieldsV1"));
        map.insert("fieldsV1".to_owned(), self.fields.encode());
        if !self.subresource.is_empty() {
            map.insert("subresource".to_owned(), json!(self.subresource));
        }
        Value::Object(map)
    }

    fn is_of(&self, manager: Manager<'_>) -> bool {
        self.operation == "Update"
            && self.manager == manager.name
            && self.api_version == manager.api_version
            && self.subresource == manager.subresource
    }

    /// Upstream's order: applies first, then by time.
    fn order(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| {
            let (operation, time, manager) =
                (entry.operation.clone(), entry.time.clone(), entry.manager.clone());
            (operation, time, manager, entry.api_version.clone(), entry.subresource.clone())
        };
        key(self).cmp(&key(other))
    }
}

/// The entries of an object; none if any is malformed, as upstream has it.
#[must_use]
pub fn entries(object: &Value) -> Vec<Entry> {
    let list = object["metadata"]["managedFields"].as_array();
    list.into_iter().flatten().map(Entry::decode).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Puts entries into an object.
pub fn set_entries(object: &mut Value, mut entries: Vec<Entry>) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if entries.is_empty() {
        meta.remove("managedFields");
        return;
    }
    entries.sort_by(Entry::order);
    let encoded: Vec<Value> = entries.iter().map(Entry::encode).collect();
    meta.insert("managedFields".to_owned(), Value::Array(encoded));
}

/// Whether the client asks to forget all managers.
fn is_reset(new: &Value) -> bool {
    match new["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Records in `new` what `manager` changed since `live` (`None`: the object is new). `ignored`: what the request
/// cannot change, whatever it says. `now`: a time in the form of metadata.
pub fn update(
    ty: TypeRef<'_>,
    live: Option<&Value>,
    new: &mut Value,
    manager: Manager<'_>,
    ignored: &Set,
    now: &str,
) {
    let zero;
    let old = match live {
        Some(live) => live,
        None => {
            zero = Value::Object(ty.zero());
            &zero
        }
    };
    let known = known(live, new, manager);
    if known.is_empty() && live.is_some() {
        return set_entries(new, Vec::new());
    }
    let found = compare(ty, old, new).without(ignored);
    let taken = found.modified.union(&found.added);
    let mut entries: Vec<Entry> = known
        .into_iter()
        .map(|entry| Entry { fields: entry.fields.difference(&taken).difference(&found.removed), ..entry })
        .collect();
    let own = taken
        .difference(&Set::of_fields(&UNOWNED))
        .difference(&Set::of_fields(&[&["metadata", "resourceVersion"]]));
    if !own.is_empty() {
        take(&mut entries, manager, &own, now);
    }
    entries.retain(|entry| !entry.fields.is_empty());
    cap(&mut entries);
    set_entries(new, entries);
}

/// The entries to begin with: those of the request if it has any that can be read, else those of the live object.
fn known(live: Option<&Value>, new: &Value, manager: Manager<'_>) -> Vec<Entry> {
    let of_live = || live.map(entries).unwrap_or_default();
    if !manager.subresource.is_empty() {
        return of_live();
    }
    if is_reset(new) {
        return Vec::new();
    }
    let given = entries(new);
    if given.is_empty() { of_live() } else { given }
}

fn take(entries: &mut Vec<Entry>, manager: Manager<'_>, own: &Set, now: &str) {
    match entries.iter_mut().find(|entry| entry.is_of(manager)) {
        Some(entry) => {
            entry.fields = entry.fields.union(own);
            now.clone_into(&mut entry.time);
        }
        None => entries.push(Entry {
            manager: manager.name.to_owned(),
            operation: "Update".to_owned(),
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
            time: now.to_owned(),
            fields: own.clone(),
        }),
    }
}

/// Merges the oldest updaters into one, if there are too many.
fn cap(entries: &mut Vec<Entry>) {
    loop {
        let updaters: Vec<usize> = {
            let mut found: Vec<usize> =
                (0..entries.len()).filter(|at| entries[*at].operation == "Update").collect();
            found.sort_by(|a, b| entries[*a].order(&entries[*b]));
            found
        };
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        let is_ancient = |entry: &Entry| entry.manager == ANCIENT;
        let Some(oldest) = updaters.iter().copied().find(|at| !is_ancient(&entries[*at])) else { return };
        let old = entries.remove(oldest);
        match entries.iter_mut().find(|entry| is_ancient(entry) && entry.api_version == old.api_version) {
            Some(ancient) => {
                ancient.fields = ancient.fields.union(&old.fields);
                if old.time > ancient.time {
                    ancient.time = old.time;
                }
            }
            None => entries.push(Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..old }),
        }
    }
}

/// Keeps the entries as they were if nothing else changed but their times.
pub fn ignore_times(new: &mut Value, old: &Value) {
    let mut without = new.clone();
    let mut before = old.clone();
    for object in [&mut without, &mut before] {
        if let Some(entries) = object["metadata"]["managedFields"].as_array_mut() {
            entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("time")));
        }
    }
    if without == before
        && let Some(entries) = old["metadata"].get("managedFields")
    {
        new["metadata"]["managedFields"] = entries.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::GroupVersionKind;
    use crate::schema::type_for;

    fn manager(name: &str) -> Manager<'_> {
        Manager { name, api_version: "v1", subresource: "" }
    }

    fn ty() -> TypeRef<'static> {
        type_for(&GroupVersionKind::new("", "v1", "ConfigMap")).expect("known")
    }

    fn owned(object: &Value) -> Vec<(String, Value)> {
        entries(object).into_iter().map(|entry| (entry.manager, entry.fields.encode())).collect()
    }

    #[test]
    fn fields_belong_to_who_changed_them_last() {
        let mut first = json!({"metadata": {"name": "a"}, "data": {"k": "1", "l": "1"}});
        update(ty(), None, &mut first, manager("maker"), &Set::default(), "2026-01-01T00:00:00Z");
        assert_eq!(owned(&first), [("maker".to_owned(), json!({"f:data": {".": {}, "f:k": {}, "f:l": {}}}))]);
        let mut second = first.clone();
        second["data"]["k"] = "2".into();
        update(ty(), Some(&first), &mut second, manager("patcher"), &Set::default(), "2026-01-01T00:00:01Z");
        assert_eq!(
            owned(&second),
            [
                ("maker".to_owned(), json!({"f:data": {".": {}, "f:l": {}}})),
                ("patcher".to_owned(), json!({"f:data": {"f:k": {}}})),
            ]
        );
        let mut third = second.clone();
        third["data"] = json!({"k": "2"});
        update(ty(), Some(&second), &mut third, manager("remover"), &Set::default(), "2026-01-01T00:00:02Z");
        assert_eq!(owned(&third)[0], ("maker".to_owned(), json!({"f:data": {}})));
        assert_eq!(owned(&third).len(), 2);
    }

    #[test]
    fn many_updaters_become_ancient() {
        let mut object = json!({"metadata": {}, "data": {"k0": "v"}});
        update(ty(), None, &mut object, manager("m0"), &Set::default(), "2026-01-01T00:00:00Z");
        for i in 1..15 {
            let old = object.clone();
            object["data"][format!("k{i}")] = "v".into();
            let (name, now) = (format!("m{i}"), format!("2026-01-01T00:00:{i:02}Z"));
            update(ty(), Some(&old), &mut object, manager(&name), &Set::default(), &now);
        }
        let all = owned(&object);
        assert_eq!(all.len(), 10);
        assert!(all.iter().any(|(name, _)| name == ANCIENT));
    }

    #[test]
    fn a_client_may_forget_all_managers() {
        let mut object = json!({"metadata": {}, "data": {"k": "v"}});
        update(ty(), None, &mut object, manager("m"), &Set::default(), "2026-01-01T00:00:00Z");
        let mut reset = object.clone();
        reset["metadata"]["managedFields"] = json!([{}]);
        update(ty(), Some(&object), &mut reset, manager("m"), &Set::default(), "2026-01-01T00:00:01Z");
        assert!(owned(&reset).is_empty());
    }
}
