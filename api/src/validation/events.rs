//! Events. The rules depend on the version that the client spoke; all see the fields of the core group.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::claim::same;
use super::golang;
use super::meta;
use super::rules::{IMMUTABLE, check, text, to_value};

/// Characters that reasons, actions and instances may have.
const SHORT: usize = 128;
const NOTE: usize = 1024;

/// An event of the core group, new or changed.
pub(crate) fn core(event: &Event) -> ErrorList {
    common(event, "reportingComponent")
}

/// A changed event of the core group.
pub(crate) fn core_update(new: &Event, _: &Event) -> ErrorList {
    core(new)
}

fn at_most(key: &str, value: &str, limit: usize, errors: &mut ErrorList) {
    if value.len() > limit {
        errors.invalid(&Path::new(key), "", format!("can have at most {limit} characters"));
    }
}

fn common(event: &Event, controller_field: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = text(&event.metadata.namespace);
    let involved = text(&event.involved_object.namespace);
    let timed = event.event_time.is_some();
    let mismatch = match (timed, involved.is_empty()) {
        (false, true) => !matches!(namespace, "" | "default"),
        (false, false) => namespace != involved,
        (true, true) => !matches!(namespace, "default" | "kube-system"),
        (true, false) => false,
    };
    if mismatch {
        let path = Path::new("involvedObject").child("namespace");
        errors.invalid(&path, involved, "does not match event.namespace");
    }
    if timed {
        let controller = text(&event.reporting_component);
        let path = Path::new(controller_field);
        if controller.is_empty() {
            errors.required(&path, "");
        }
        errors.extend(check(&path, controller, format::label_key(controller)));
        let fields = [
            ("reportingInstance", text(&event.reporting_instance)),
            ("action", text(&event.action)),
            ("reason", text(&event.reason)),
        ];
        for (key, value) in fields {
            if value.is_empty() {
                errors.required(&Path::new(key), "");
            }
            at_most(key, value, SHORT, &mut errors);
        }
        at_most("message", text(&event.message), NOTE, &mut errors);
    }
    errors.extend(check(&Path::new("namespace"), namespace, format::dns1123_subdomain(namespace)));
    errors
}

/// A new event of `events.k8s.io`.
pub(crate) fn create(event: &Event) -> ErrorList {
    let mut errors = common(event, "reportingController");
    let path = Path::new("metadata");
    errors.extend(meta::validate_core(&event.metadata, true, format::name_is_subdomain, &path));
    series(event, &mut errors);
    if event.event_time.is_none() {
        errors.required(&Path::new("eventTime"), "");
    }
    let kind = text(&event.type_);
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
    }
    let source = event.source.clone().unwrap_or_default();
    let sourced = !text(&source.component).is_empty() || !text(&source.host).is_empty();
    let unwanted = [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        ("source", sourced),
    ];
    for (key, _) in unwanted.into_iter().filter(|(_, set)| *set) {
        errors.invalid(&Path::new(key), "", "needs to be unset");
    }
    errors
}

fn series(event: &Event, errors: &mut ErrorList) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or(0) < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

/// A changed event of `events.k8s.io`.
pub(crate) fn update(new: &Event, old: &Event) -> ErrorList {
    let mut errors = common(new, "reportingController");
    errors.extend(meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata")));
    if new.series != old.series {
        series(new, &mut errors);
    }
    let (after, before) = (to_value(new), to_value(old));
    let fixed = [
        ("involvedObject", "core.ObjectReference"),
        ("reason", ""),
        ("message", ""),
        ("source", "core.EventSource"),
        ("firstTimestamp", ""),
        ("lastTimestamp", ""),
        ("count", "0"),
        ("reason", ""),
        ("type", ""),
        ("eventTime", ""),
        ("action", ""),
        ("related", "core.ObjectReference"),
        ("reportingComponent", ""),
        ("reportingInstance", ""),
    ];
    for (key, kind) in fixed {
        let (value, other) = (&after[key], &before[key]);
        let unchanged = if key == "eventTime" { micros(new) == micros(old) } else { same(value, other) };
        if unchanged {
            continue;
        }
        let path = Path::new(if key == "reportingComponent" { "reportingController" } else { key });
        let time = key.ends_with("Timestamp") || key == "eventTime";
        errors.push(match (kind, value) {
            ("0", Value::Null) => Error::invalid(&path, 0, IMMUTABLE),
            ("", Value::Null) if !time => Error::invalid(&path, "", IMMUTABLE),
            ("" | "0", value) => Error::invalid(&path, value.clone(), IMMUTABLE),
            (kind, value) => Error::invalid_shown(&path, golang::show(kind, value), IMMUTABLE),
        });
    }
    errors
}

fn micros(event: &Event) -> Option<i64> {
    event.event_time.as_ref().map(|time| time.0.as_microsecond())
}
