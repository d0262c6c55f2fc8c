//! Who has set which field: `metadata.managedFields`, and server-side apply, which stands on it (upstream
//! `apimachinery/pkg/util/managedfields`).
//!
//! [`FieldManager::update`] records what a create, update or patch has changed; [`FieldManager::apply`] merges an
//! applied configuration into an object. The sets and the merge itself are in [`crate::structured`].

mod builtin;
mod cap;
mod conflict;
mod entries;
mod last_applied;
pub mod scale;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

pub use crate::structured::{Filter, Set};
pub use builtin::BuiltIn;
pub use entries::{Invalid, Managed, ManagerId, Operation};

use crate::names::{GroupVersion, GroupVersionKind};
use crate::status::ApiError;
use crate::structured::{Converter, Duplicates, Failure, Updater, check};

/// Fields that nobody owns.
const UNOWNED: [&[&str]; 12] = [
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
    &["metadata", "resourceVersion"],
];

/// They as a set.
static UNOWNED_SET: LazyLock<Set> = LazyLock::new(|| Set::of_fields(&UNOWNED));
/// Stands for the manager of the request while its changes are looked for.
const CURRENT: &str = "current-operation";
/// Has what was there before the first apply to an object without known managers.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The kind of the objects, in all its versions.
pub trait Versions: Converter {
    /// A new object of the version of the request, with nothing said in it.
    fn zero(&self) -> Value;

    /// A new object as upstream compares it with the live one: some conversions to the stored version and back add
    /// fields, which then are the writer's.
    fn converted<'v>(&self, object: &'v Value) -> Cow<'v, Value> {
        Cow::Borrowed(object)
    }

    /// A merged object as it comes out of decoding: checked against its type, in its normal form, defaulted.
    ///
    /// # Errors
    /// Why it is no such object.
    fn settle(&self, object: Value) -> Result<Value, String>;
}

/// Keeps `managedFields` for one request.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    /// The kind of the objects in all its versions.
    pub versions: &'a dyn Versions,
    /// The kind in the version of the request.
    pub kind: &'a GroupVersionKind,
    /// Subresource of the request; empty for none.
    pub subresource: &'a str,
    /// The time of the request as metadata has it.
    pub now: &'a str,
}

impl FieldManager<'_> {
    /// Records in `new` what `manager` has changed in `live` (`None`: the object is new). If that cannot be told,
    /// nobody owns anything.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let managed = self.known(live, new);
        remove_entries(new);
        let is_new = live.is_none_or(|live| uid(live).is_empty());
        if managed.fields.is_empty() && !is_new {
            return;
        }
        let zero;
        let live = match live {
            Some(live) => live,
            None => {
                zero = self.versions.zero();
                &zero
            }
        };
        let converted = self.versions.converted(new);
        if let Ok(managed) = self.record(live, &converted, managed, manager) {
            managed.write(new);
        }
    }

    /// The entries to begin with: those of the request if they can be read, else those of the live object.
    fn known(&self, live: Option<&Value>, new: &Value) -> Managed {
        let of_live = || live.and_then(|live| Managed::of(live).ok()).unwrap_or_default();
        // Nobody edits them by way of a subresource.
        if !self.subresource.is_empty() {
            return of_live();
        }
        if is_reset(new) {
            return Managed::default();
        }
        match Managed::of(new) {
            Ok(managed) if !managed.fields.is_empty() => managed,
            _ => of_live(),
        }
    }

    fn id(&self, manager: &str, operation: Operation) -> ManagerId {
        let api_version = match operation {
            Operation::Update => self.version(),
            // Whatever versions a manager applies in, it is one.
            Operation::Apply => String::new(),
        };
        let manager = if manager.is_empty() { "unknown" } else { manager };
        let subresource = self.subresource.to_owned();
        ManagerId { manager: manager.to_owned(), operation, api_version, subresource }
    }

    fn version(&self) -> String {
        self.kind.group_version().to_string()
    }

    /// Gives to `manager` what differs between `live` and `new`.
    fn record(
        &self,
        live: &Value,
        new: &Value,
        mut managed: Managed,
        manager: &str,
    ) -> Result<Managed, Failure<ManagerId>> {
        let current = self.id(CURRENT, Operation::Update);
        let updater = Updater { converter: self.versions };
        let before = std::mem::take(&mut managed.fields);
        managed.fields = updater.update(live, new, &self.version(), before, &current)?;
        managed.strip(&current);
        if let Some(mut taken) = managed.fields.remove(&current) {
            let id = self.id(manager, Operation::Update);
            if let Some(own) = managed.fields.get(&id) {
                taken.set = taken.set.union(own.set.clone());
            }
            managed.fields.insert(id.clone(), taken);
            managed.times.insert(id, self.now.to_owned());
        }
        cap::cap(&mut managed);
        Ok(managed)
    }

    /// What becomes of `live` (`None`: the object is new) when `manager` applies `config`. With `force`, the manager
    /// takes the fields of others that would change.
    ///
    /// # Errors
    /// 409 when others have such fields, 400 for a body that may not be applied, 500 for one that does not fit.
    pub fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApiError> {
        let live = live.cloned().unwrap_or_else(|| self.versions.zero());
        let managed =
            Managed::of(&live).map_err(|why| failed(format!("failed to decode managed fields: {why}")))?;
        self.check_kind(config)?;
        let applied = match self.merged(&live, config, managed.clone(), manager, force) {
            // As upstream's lastAppliedManager: what kubectl applied on the client's side was its own all along.
            Err(Refusal::Conflicts(conflicts)) if manager == last_applied::KUBECTL => {
                match last_applied::left(self, &live, conflicts) {
                    conflicts if conflicts.is_empty() => self.merged(&live, config, managed, manager, true),
                    conflicts => Err(Refusal::Conflicts(conflicts)),
                }
            }
            outcome => outcome,
        };
        let (mut object, managed) = applied.map_err(|refusal| match refusal {
            Refusal::Conflicts(conflicts) => conflict::error(&conflicts),
            Refusal::Error(error) => error,
        })?;
        if manager == last_applied::KUBECTL {
            last_applied::renew(&mut object, config);
        }
        managed.write(&mut object);
        Ok(object)
    }

    /// The kind of a configuration is that of the request.
    fn check_kind(&self, config: &Value) -> Result<(), ApiError> {
        let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
        let version = GroupVersion::parse(&text("apiVersion")).unwrap_or_else(|| GroupVersion::new("", ""));
        let kind = version.with_kind(text("kind"));
        if kind == *self.kind {
            return Ok(());
        }
        Err(ApiError::bad_request(format!("invalid object type: {}", go_kind(&kind))))
    }

    fn merged(
        &self,
        live: &Value,
        config: &Value,
        mut managed: Managed,
        manager: &str,
        force: bool,
    ) -> Result<(Value, Managed), Refusal> {
        if managed.fields.is_empty() {
            managed =
                self.record(&self.versions.zero(), live, managed, BEFORE_FIRST_APPLY).map_err(|why| {
                    failed(format!("failed to create manager for existing fields: {}", conflict::text(&why)))
                })?;
        }
        if config["metadata"]["managedFields"].is_array() {
            return Err(ApiError::bad_request("metadata.managedFields must be nil").into());
        }
        let named = self.named(config);
        let shape = self.versions.shape(&self.version());
        let shape =
            shape.ok_or_else(|| failed(format!("no corresponding type for {}", go_kind(self.kind))))?;
        check(shape, config, Duplicates::Refused)
            .map_err(|found| failed(format!("failed to create typed patch object ({named}): {found}")))?;
        check(shape, live, Duplicates::Allowed).map_err(|found| {
            failed(format!("failed to create typed live object ({}): {found}", self.named(live)))
        })?;
        let id = self.id(manager, Operation::Apply);
        let updater = Updater { converter: self.versions };
        let before = std::mem::take(&mut managed.fields);
        let (object, fields) = updater.apply(live, config, &self.version(), before, &id, force).map_err(
            |failure| match failure {
                Failure::Conflicts(conflicts) => Refusal::Conflicts(conflicts),
                Failure::Other(why) => failed(why).into(),
            },
        )?;
        managed.fields = fields;
        managed.strip(&id);
        let object = match object {
            None => live.clone(),
            Some(object) => {
                managed.times.insert(id, self.now.to_owned());
                self.versions.settle(object).map_err(|why| {
                    failed(format!("failed to convert new object ({named}) to proper version: {why}"))
                })?
            }
        };
        Ok((object, managed))
    }

    /// An object as errors call it.
    fn named(&self, object: &Value) -> String {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        format!("{}/{}; {}", text("namespace"), text("name"), go_kind(self.kind))
    }
}

/// Why a configuration was not applied.
enum Refusal {
    Conflicts(conflict::Conflicts),
    Error(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// 500 without a reason, as upstream answers errors that are no Status.
fn failed(why: String) -> ApiError {
    ApiError::new(500, "", why)
}

/// A kind as Go prints it.
fn go_kind(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn remove_entries(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

/// Whether the client asks to forget all managers.
fn is_reset(new: &Value) -> bool {
    match new["metadata"]["managedFields"].as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Keeps the entries as they were if nothing else changed but their times.
pub fn ignore_times(new: &mut Value, old: &Value) {
    let entries =
        |object: &Value| object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (after, before) = (entries(new), entries(old));
    let same_but_time = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            let named = |map: &Map<String, Value>| map.keys().filter(|key| *key != "time").count();
            named(a) == named(b) && a.iter().all(|(key, value)| key == "time" || b.get(key) == Some(value))
        }
        _ => a == b,
    };
    let same = after.len() == before.len() && after.iter().zip(&before).all(|(a, b)| same_but_time(a, b));
    if after.is_empty() || !same || after == before {
        return;
    }
    new["metadata"]["managedFields"] = Value::Array(before);
    if new != old {
        new["metadata"]["managedFields"] = Value::Array(after);
    }
}
