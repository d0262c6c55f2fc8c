//! Who changes what: the field manager of a request (upstream `RequestScope.FieldManager`).

use api::managed_fields::{BuiltIn, FieldManager, Versions};
use api::names::GroupVersionKind;
use http::header::USER_AGENT;
use serde_json::Value;

use super::Resource;
use super::managed_custom::CustomVersions;
use crate::object;
use crate::server::Context;

/// The versions of a kind, as handlers carry them along.
pub enum AnyVersions {
    /// Of a built-in kind.
    BuiltIn(Box<BuiltIn>),
    /// Of a custom resource.
    Custom(Box<CustomVersions>),
}

impl AnyVersions {
    /// As structured merge sees them.
    #[must_use]
    pub fn as_versions(&self) -> &dyn Versions {
        match self {
            Self::BuiltIn(versions) => versions.as_ref(),
            Self::Custom(versions) => versions.as_ref(),
        }
    }

    /// Converts what structured merge was lacking, if it was: it has to be done over then. It does no I/O, and where a
    /// webhook converts it says what it needs by failing.
    pub async fn supply(&self) -> bool {
        match self {
            Self::BuiltIn(_) => false,
            Self::Custom(versions) => versions.supply().await,
        }
    }
}

/// Names of managers are cut after so many bytes.
const MAX_NAME: usize = 128;

/// The versions of a resource, with what a request for a part of it (empty: all of it) can change.
#[must_use]
pub fn versions(resource: &Resource, part: &str) -> AnyVersions {
    if let Some(custom) = &resource.custom {
        return AnyVersions::Custom(Box::new(CustomVersions::new(custom, part)));
    }
    let filter = api::strategy::reset_fields(&resource.gvk, part);
    AnyVersions::BuiltIn(Box::new(BuiltIn::new(resource.gvk.clone(), filter)))
}

/// The versions of a kind whose objects are sent, but not stored: reviews, scales.
#[must_use]
pub fn versions_of(kind: &GroupVersionKind) -> AnyVersions {
    AnyVersions::BuiltIn(Box::new(BuiltIn::new(kind.clone(), None)))
}

/// Records in an object whose fields the request has set; `old` is what was there before.
pub async fn record(
    cx: &Context,
    versions: &AnyVersions,
    kind: &GroupVersionKind,
    subresource: &str,
    object: &mut Value,
    old: Option<&Value>,
) {
    let name = manager_name(cx);
    if let AnyVersions::BuiltIn(_) = versions {
        return record_for(&name, versions, kind, subresource, object, old);
    }
    loop {
        let mut recorded = object.clone();
        record_for(&name, versions, kind, subresource, &mut recorded, old);
        if !versions.supply().await {
            *object = recorded;
            return;
        }
    }
}

/// As [`record`], of changes that a manager of this name has made.
pub fn record_for(
    name: &str,
    versions: &AnyVersions,
    kind: &GroupVersionKind,
    subresource: &str,
    object: &mut Value,
    old: Option<&Value>,
) {
    let now = object::now();
    let now = now.as_str().unwrap_or_default();
    let manager = FieldManager { versions: versions.as_versions(), kind, subresource, now };
    manager.update(old, object, name);
}

/// The field manager of the request, or what the client calls itself (upstream `managerOrUserAgent`).
fn manager_name(cx: &Context) -> String {
    match cx.query.first("fieldManager") {
        Some(given) if !given.is_empty() => given.to_owned(),
        _ => {
            let agent = cx.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
            from_agent(agent.as_deref().unwrap_or_default())
        }
    }
}

fn from_agent(agent: &str) -> String {
    let mut name = String::new();
    let printable = |c: &char| *c == ' ' || !(c.is_control() || c.is_whitespace());
    for c in agent.split('/').next().unwrap_or_default().chars().filter(printable) {
        if name.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    // The cases of upstream's TestManagerOrUserAgent.
    #[test]
    fn clients_are_called_by_the_beginning_of_their_agent() {
        let long = "a".repeat(128);
        for (agent, name) in [
            ("", ""),
            ("kubectl/v1.36.0 (linux/amd64)", "kubectl"),
            ("plain agent", "plain agent"),
            ("a\u{7f}b\tc", "abc"),
            (&format!("{long}b/1"), &long),
            (&"ü".repeat(70), &"ü".repeat(64)),
        ] {
            assert_eq!(from_agent(agent), name);
        }
    }
}
