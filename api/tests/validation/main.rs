//! Upstream's tables of objects that are valid and that are not (`pkg/apis/*/validation`), put to ours.
//!
//! Objects are checked as they stand, without defaults. A case is a merge patch of a valid object and what is wrong
//! first: `field: part of the message`, as upstream's keys of such cases are; nothing if the object is valid.

#![allow(clippy::unwrap_used, missing_docs)]

mod autoscaling;
mod batch;
mod certificates;
mod claims;
mod endpoints;
mod events;
mod flowcontrol;
mod leases;
mod networking;
mod node;
mod persistent_volumes;
mod pod;
mod policy;
mod quotas;
mod service_changes;
mod services;
mod small;
mod stateful_sets;
mod storage;
mod workloads;

use api::field::ErrorList;
use api::names::GroupVersionKind;
use api::{patch::merge, schema, validation};
use serde_json::{Value, json};

fn decoded(kind: &GroupVersionKind, object: Value) -> Value {
    let mut value = schema::type_for(kind).unwrap().decode_value(object).unwrap().value;
    value["apiVersion"] = kind.group_version().to_string().into();
    value["kind"] = kind.kind.to_string().into();
    value
}

/// A valid object with some changes.
fn with(base: &Value, changes: &Value) -> Value {
    let mut object = base.clone();
    merge::apply(&mut object, changes.clone());
    object
}

/// Whether what is wrong first is what is expected.
fn verdict(errors: &ErrorList, expected: &str) -> Result<(), String> {
    let found = || errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n    ");
    match (errors.first(), expected.split_once(':')) {
        (None, None) => Ok(()),
        (Some(error), Some((field, text)))
            if error.field.as_str() == field && error.to_string().contains(text.trim_start()) =>
        {
            Ok(())
        }
        _ => Err(format!("{expected:?} expected, found:\n    {}", found())),
    }
}

/// Whether all that is wrong is what is expected: parts divided by ` | `, each below the field `at`.
fn whole_verdict(errors: &ErrorList, at: &str, expected: &str) -> Result<(), String> {
    let parts: Vec<&str> = expected.split(" | ").filter(|part| !part.is_empty()).collect();
    let matches = |error: &api::field::Error, part: &str| {
        let part = format!("{at}{part}");
        part.split_once(": ").is_some_and(|(field, text)| {
            error.field.as_str() == field && error.to_string().contains(text.trim_start())
        })
    };
    if parts.len() == errors.len() && errors.iter().zip(&parts).all(|(error, part)| matches(error, part)) {
        return Ok(());
    }
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(format!("{at}: {expected:?} expected, found:\n    {}", found.join("\n    ")))
}

/// Puts all cases to the validation of new objects; they say all that is wrong, as [`whole_verdict`] reads it.
fn below(
    kind: &GroupVersionKind,
    base: &Value,
    at: &str,
    place: impl Fn(&Value) -> Value,
    cases: &[(Value, &str)],
) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(part, expected)| {
            let object = decoded(kind, with(base, &place(part)));
            let why = whole_verdict(&validation::validate_create(kind, &object), at, expected).err()?;
            Some(format!("{part}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As [`below`], of cases that are changes of the whole object.
fn wholly(kind: &GroupVersionKind, base: &Value, cases: &[(Value, &str)]) {
    below(kind, base, "", Clone::clone, cases);
}

/// Puts all cases to the validation of objects changed by a subresource (or none): what is different from a valid
/// object before and after, and all that is wrong with that.
fn changes(kind: &GroupVersionKind, subresource: &str, base: &Value, cases: &[(Value, Value, &str)]) {
    let mut base = base.clone();
    base["metadata"]["resourceVersion"] = "1".into();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(before, after, expected)| {
            let (old, new) = (decoded(kind, with(&base, before)), decoded(kind, with(&base, after)));
            let errors = match subresource {
                "" => validation::validate_update(kind, &new, &old),
                _ => validation::validate_subresource_update(kind, subresource, &new, &old),
            };
            let why = whole_verdict(&errors, "", expected).err()?;
            Some(format!("{before} -> {after}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Puts all cases to the validation of new objects.
fn creates(kind: &GroupVersionKind, base: &Value, cases: &[(Value, &str)]) {
    let check = |changes: &Value| validation::validate_create(kind, &decoded(kind, with(base, changes)));
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(changes, expected)| {
            let why = verdict(&check(changes), expected).err()?;
            Some(format!("{changes}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As [`creates`], of cases that say how many errors there are.
fn counts(kind: &GroupVersionKind, base: &Value, cases: &[(Value, usize)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(changes, expected)| {
            let errors = validation::validate_create(kind, &decoded(kind, with(base, changes)));
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            (found.len() != *expected).then(|| {
                format!("{changes}: {expected} errors expected, found:\n    {}", found.join("\n    "))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Puts all cases to the validation of changed objects.
fn updates(kind: &GroupVersionKind, base: &Value, cases: &[(Value, &str)]) {
    let mut base = base.clone();
    base["metadata"]["resourceVersion"] = "1".into();
    let old = decoded(kind, base.clone());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(changes, expected)| {
            let new = decoded(kind, with(&base, changes));
            let why = verdict(&validation::validate_update(kind, &new, &old), expected).err()?;
            Some(format!("{changes}: {why}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The spec of a pod that lacks nothing (upstream `podtest.MakePodSpec`).
fn pod_spec(restart: &str) -> Value {
    json!({
        "containers": [container("ctr")], "restartPolicy": restart, "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
    })
}

fn container(name: &str) -> Value {
    json!({
        "name": name, "image": "image", "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "File",
        "terminationMessagePath": "/dev/termination-log",
    })
}
