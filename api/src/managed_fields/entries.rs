//! `managedFields` between its wire form and the sets of managers (upstream `internal/managedfields.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::UNOWNED_SET;
use crate::structured::{Managers, Set, Versioned};

/// How a manager sets fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// In any other way.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    /// The name.
    pub manager: String,
    /// How it sets fields.
    pub operation: Operation,
    /// The version of an update; empty for applies.
    pub api_version: String,
    /// Subresource; empty for none.
    pub subresource: String,
}

impl ManagerId {
    /// Upstream's text for it, by which it sorts managers.
    #[must_use]
    pub fn text(&self) -> String {
        let mut fields = Vec::new();
        for (name, text) in [
            ("manager", self.manager.as_str()),
            ("operation", self.operation.as_str()),
            ("apiVersion", &self.api_version),
            ("subresource", &self.subresource),
        ] {
            if !text.is_empty() {
                fields.push(format!("\"{name}\":{}", crate::codec::json::escaped(&text.into())));
            }
        }
        format!("{{{}}}", fields.join(","))
    }
}

/// Why entries cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An unknown operation.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No version.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// No type of fields.
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    /// An unknown type of fields.
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    /// Fields that cannot be read.
    #[error("error decoding set: {0}")]
    Fields(#[from] crate::structured::element::Malformed),
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// Their fields.
    pub fields: Managers<ManagerId>,
    /// When they last changed something, as metadata has it.
    pub times: BTreeMap<ManagerId, String>,
}

impl Managed {
    /// The managers of an object.
    ///
    /// # Errors
    /// When any entry is malformed.
    pub fn of(object: &Value) -> Result<Self, Invalid> {
        match &object["metadata"]["managedFields"] {
            Value::Array(entries) => Self::decode(entries),
            _ => Ok(Self::default()),
        }
    }

    /// Reads entries.
    ///
    /// # Errors
    /// When any of them is malformed.
    pub fn decode(entries: &[Value]) -> Result<Self, Invalid> {
        let mut managed = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(Invalid::Operation),
            };
            let version = text("apiVersion");
            if version.is_empty() {
                return Err(Invalid::ApiVersion);
            }
            match text("fieldsType").as_str() {
                "FieldsV1" => {}
                "" => return Err(Invalid::NoFieldsType(index)),
                other => return Err(Invalid::FieldsType(other.to_owned(), index)),
            }
            let set = match &entry["fieldsV1"] {
                Value::Null => Set::default(),
                fields => Set::decode(fields)?,
            };
            let applied = operation == Operation::Apply;
            let id = ManagerId {
                manager: text("manager"),
                operation,
                api_version: if applied { String::new() } else { version.clone() },
                subresource: text("subresource"),
            };
            match text("time") {
                time if time.is_empty() => managed.times.remove(&id),
                time => managed.times.insert(id.clone(), time),
            };
            managed.fields.insert(id, Versioned { set, version, applied });
        }
        Ok(managed)
    }

    /// The entries in upstream's order: applies first, then by time.
    #[must_use]
    pub fn encode(&self) -> Vec<Value> {
        let mut entries: Vec<(&ManagerId, &Versioned, &str)> = self
            .fields
            .iter()
            .map(|(id, owned)| (id, owned, self.times.get(id).map(String::as_str).unwrap_or_default()))
            .collect();
        let operation = |owned: &Versioned, id: &ManagerId| match owned.applied {
            true => Operation::Apply,
            false => id.operation,
        };
        entries.sort_by_key(|(id, owned, time)| {
            (operation(owned, id), *time, &id.manager, &owned.version, &id.subresource)
        });
        let entry = |(id, owned, time): (&ManagerId, &Versioned, &str)| {
            let mut map = Map::new();
            for (name, text) in [
                ("manager", id.manager.as_str()),
                ("operation", operation(owned, id).as_str()),
                ("apiVersion", &owned.version),
                ("time", time),
                ("fieldsType", "FieldsV1"),
                ("subresource", &id.subresource),
            ] {
                if !text.is_empty() {
                    map.insert(name.to_owned(), json!(text));
                }
            }
            map.insert("fieldsV1".to_owned(), owned.set.encode());
            Value::Object(map)
        };
        entries.into_iter().map(entry).collect()
    }

    /// Puts the entries into an object.
    pub fn write(&self, object: &mut Value) {
        let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if self.fields.is_empty() {
            meta.remove("managedFields");
        } else {
            meta.insert("managedFields".to_owned(), Value::Array(self.encode()));
        }
    }

    /// Takes from a manager the fields that nobody owns.
    pub(super) fn strip(&mut self, id: &ManagerId) {
        let Some(owned) = self.fields.get_mut(id) else { return };
        owned.set = std::mem::take(&mut owned.set).difference(&UNOWNED_SET);
        if owned.set.is_empty() {
            self.fields.remove(id);
        }
    }
}
