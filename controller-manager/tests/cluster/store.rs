//! The objects of a small API server in memory: versions, finalizers, owners' wishes on deletion.

use controller_manager::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Group and version, plural, namespace, name.
pub type Key = (String, String, String, String);

/// One change.
#[derive(Clone)]
pub struct Change {
    pub version: u64,
    pub key: Key,
    pub kind: &'static str,
    pub object: Value,
}

#[derive(Default)]
struct State {
    version: u64,
    serial: u64,
    objects: BTreeMap<Key, Value>,
    changes: Vec<Change>,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {
    /// What time it is.
    pub clock: Clock,
    state: Arc<Mutex<State>>,
    head: watch::Sender<u64>,
}

/// Why a call failed: code, reason, message.
pub type Refused = (u16, &'static str, String);

fn not_found(key: &Key) -> Refused {
    (404, "NotFound", format!("{} {:?} not found", key.1, key.3))
}

fn conflict(key: &Key) -> Refused {
    (409, "Conflict", format!("{} {:?} was modified", key.1, key.3))
}

/// Whether something may be made in a namespace: as admission has it, one that is being deleted takes nothing more.
fn takes_more(state: &State, namespace: &str) -> Result<(), Refused> {
    if matches!(namespace, "" | "kube-system" | "kube-node-lease") {
        return Ok(());
    }
    let key = ("v1".to_owned(), "namespaces".to_owned(), String::new(), namespace.to_owned());
    let held = state.objects.get(&key).ok_or_else(|| not_found(&key))?;
    if held["metadata"]["deletionTimestamp"].is_null() {
        return Ok(());
    }
    Err((403, "Forbidden", format!("namespace {namespace} is being terminated")))
}

/// One text in the metadata of an object.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

impl Store {
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Arc::default(), head: watch::Sender::new(0) }
    }

    /// The time, as objects have it.
    pub fn now(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The time with its fractions.
    pub fn now_exactly(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }

    /// Notices of new changes.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub fn get(&self, key: &Key) -> Option<Value> {
        self.state.lock().objects.get(key).cloned()
    }

    /// Objects of a resource, in a namespace if one is named.
    pub fn list(&self, group_version: &str, plural: &str, namespace: &str) -> (u64, Vec<Value>) {
        let state = self.state.lock();
        let of = |(key, _): &(&Key, &Value)| {
            key.0 == group_version && key.1 == plural && (namespace.is_empty() || key.2 == namespace)
        };
        (state.version, state.objects.iter().filter(of).map(|(_, object)| object.clone()).collect())
    }

    /// Changes after a version.
    pub fn changes(&self, after: u64) -> Vec<Change> {
        let state = self.state.lock();
        let first = state.changes.partition_point(|change| change.version <= after);
        state.changes[first..].to_vec()
    }

    pub fn create(&self, mut key: Key, mut object: Value) -> Result<Value, Refused> {
        let mut state = self.state.lock();
        takes_more(&state, &key.2)?;
        if key.3.is_empty() {
            state.serial += 1;
            key.3 = format!("{}{:05}", text(&object, "/metadata/generateName"), state.serial);
        }
        if state.objects.contains_key(&key) {
            return Err((409, "AlreadyExists", format!("{} {:?} already exists", key.1, key.3)));
        }
        state.serial += 1;
        let uid = format!("uid-{:05}", state.serial);
        object["metadata"]["name"] = json!(key.3);
        if !key.2.is_empty() {
            object["metadata"]["namespace"] = json!(key.2);
        }
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!(self.now());
        match key.1.as_str() {
            "pods" => object["status"] = json!({ "phase": "Pending" }),
            "namespaces" => {
                object["spec"] = json!({ "finalizers": ["kubernetes"] });
                object["status"] = json!({ "phase": "Active" });
            }
            _ => {}
        }
        Ok(self.put(&mut state, key, "ADDED", object))
    }

    fn put(&self, state: &mut State, key: Key, kind: &'static str, mut object: Value) -> Value {
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        if kind == "DELETED" {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key.clone(), object.clone());
        }
        state.changes.push(Change { version, key, kind, object: object.clone() });
        self.head.send_replace(version);
        object
    }

    /// Replaces an object, or the part of it that a subresource stands for.
    pub fn update(&self, key: &Key, part: &str, new: Value) -> Result<Value, Refused> {
        let mut state = self.state.lock();
        let old = state.objects.get(key).cloned().ok_or_else(|| not_found(key))?;
        let version = text(&new, "/metadata/resourceVersion");
        if !version.is_empty() && version != text(&old, "/metadata/resourceVersion") {
            return Err(conflict(key));
        }
        self.replace(&mut state, key, part, old, new)
    }

    fn replace(
        &self,
        state: &mut State,
        key: &Key,
        part: &str,
        old: Value,
        new: Value,
    ) -> Result<Value, Refused> {
        let mut merged = if part.is_empty() { new.clone() } else { old.clone() };
        let keep = |merged: &mut Value, field: &str| match old.get(field) {
            Some(value) => merged[field] = value.clone(),
            None => {
                if let Some(map) = merged.as_object_mut() {
                    map.remove(field);
                }
            }
        };
        match part {
            "" => {
                keep(&mut merged, "status");
                if key.1 == "namespaces" {
                    keep(&mut merged, "spec");
                }
            }
            "status" | "approval" => {
                merged["status"] = new["status"].clone();
                merged["metadata"]["annotations"] = new["metadata"]["annotations"].clone();
            }
            "finalize" => merged["spec"] = new["spec"].clone(),
            other => return Err((404, "NotFound", format!("no subresource {other}"))),
        }
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "name", "namespace"] {
            merged["metadata"][field] = old["metadata"][field].clone();
        }
        merged["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        let (merged, old) = (without_nulls(merged), without_nulls(old));
        if merged == old {
            return Ok(old);
        }
        let mut merged = merged;
        if merged.get("spec") != old.get("spec") {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
            merged["metadata"]["generation"] = json!(generation + 1);
        }
        let kind = if is_done(key, &merged) { "DELETED" } else { "MODIFIED" };
        Ok(self.put(state, key.clone(), kind, merged))
    }

    /// Applies a patch, which may name the UID and the version it is for.
    pub fn patch(&self, key: &Key, part: &str, patch: &Value) -> Result<Value, Refused> {
        let mut state = self.state.lock();
        let old = state.objects.get(key).cloned().ok_or_else(|| not_found(key))?;
        for field in ["uid", "resourceVersion"] {
            let wanted = patch.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
            if wanted.is_some_and(|wanted| wanted != text(&old, &format!("/metadata/{field}"))) {
                return Err(conflict(key));
            }
        }
        let mut new = old.clone();
        merge(&mut new, patch);
        self.replace(&mut state, key, part, old, new)
    }

    /// Deletes, with everything that may have to happen before.
    pub fn delete(&self, key: &Key, options: &Value) -> Result<Value, Refused> {
        let mut state = self.state.lock();
        let mut object = state.objects.get(key).cloned().ok_or_else(|| not_found(key))?;
        for field in ["uid", "resourceVersion"] {
            let wanted = options.pointer(&format!("/preconditions/{field}")).and_then(Value::as_str);
            if wanted.is_some_and(|wanted| wanted != text(&object, &format!("/metadata/{field}"))) {
                return Err(conflict(key));
            }
        }
        let before = object.clone();
        let mut held = finalizers(&object);
        let wish = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(wish) = wish.filter(|wish| !held.iter().any(|held| held == wish)) {
            held.push(wish.to_owned());
            object["metadata"]["finalizers"] = json!(held);
        }
        let grace = options["gracePeriodSeconds"].as_i64();
        let runs = key.1 == "pods" && !text(&object, "/spec/nodeName").is_empty() && grace != Some(0);
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!(self.now());
        }
        if held.is_empty() && !runs && key.1 != "namespaces" {
            return Ok(self.put(&mut state, key.clone(), "DELETED", object));
        }
        if object == before {
            return Ok(object);
        }
        Ok(self.put(&mut state, key.clone(), "MODIFIED", object))
    }
}

/// Whether the last finalizer of a deleted object went.
fn is_done(key: &Key, object: &Value) -> bool {
    let deleting = !object["metadata"]["deletionTimestamp"].is_null();
    let spec =
        object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let runs = key.1 == "pods" && !text(object, "/spec/nodeName").is_empty();
    deleting && finalizers(object).is_empty() && !(key.1 == "namespaces" && spec) && !runs
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        for value in map.values_mut() {
            *value = without_nulls(value.take());
        }
    }
    value
}

/// Merge patch, with the few directives of strategic merge patch that controllers use.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = target[list].as_array_mut() {
                items.retain(|item| !gone.contains(item));
            }
        } else if key == "ownerReferences" && value[0]["$patch"] == "delete" {
            if let Some(items) = target[key].as_array_mut() {
                items.retain(|item| item["uid"] != value[0]["uid"]);
            }
        } else if key == "conditions" {
            let mut items = target[key].as_array().cloned().unwrap_or_default();
            for new in value.as_array().into_iter().flatten() {
                items.retain(|item| item["type"] != new["type"]);
                items.push(new.clone());
            }
            target[key] = json!(items);
        } else if value.is_null() {
            if let Some(map) = target.as_object_mut() {
                map.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}
