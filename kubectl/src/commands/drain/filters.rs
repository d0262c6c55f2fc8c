//! Which pods are to leave a node. Pure; as upstream's `pkg/drain/filters.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::text;

const DAEMON_SET_FATAL: &str = "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)";
const DAEMON_SET_WARNING: &str = "ignoring DaemonSet-managed Pods";
const LOCAL_STORAGE_FATAL: &str = "Pods with local storage (use --delete-emptydir-data to override)";
const UNMANAGED_FATAL: &str = "Pods that declare no controller (use --force to override)";
const UNMANAGED_WARNING: &str = "deleting Pods that declare no controller";
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

/// What the user lets happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) force: bool,
    pub(super) ignore_daemon_sets: bool,
    pub(super) delete_local_data: bool,
    /// Pods that have been ending for longer than so many seconds are left alone; none if zero.
    pub(super) skip_deleted_for: i64,
    pub(super) now: Timestamp,
}

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It leaves.
    Leave,
    /// It leaves, and that is worth a warning.
    LeaveWith(&'static str),
    /// It stays, and nobody wonders.
    Stay,
    /// It stays, and that is worth a warning.
    StayWith(&'static str),
    /// As long as it is there nothing happens.
    Refuse(String),
}

impl Fate {
    /// Whether it leaves.
    pub(super) fn leaves(&self) -> bool {
        matches!(self, Self::Leave | Self::LeaveWith(_))
    }

    fn warning(&self) -> Option<&str> {
        match self {
            Self::LeaveWith(text) | Self::StayWith(text) => Some(text),
            _ => None,
        }
    }
}

/// What the server says of the DaemonSet of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// It is there.
    There,
    /// It is not, in these words.
    Missing(String),
    /// It could not be asked for, in these words.
    Unknown(String),
}

/// A pod, and what is to become of it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) pod: Value,
    pub(super) fate: Fate,
}

/// The DaemonSet that controls a pod which has not ended.
pub(super) fn daemon_set(pod: &Value) -> Option<&str> {
    let owner = controller(pod)?;
    let is_set = text(owner, "/kind") == "DaemonSet" && text(owner, "/apiVersion") == "apps/v1";
    (is_set && !has_ended(pod)).then(|| text(owner, "/name"))
}

fn controller(pod: &Value) -> Option<&Value> {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().find(|owner| owner["controller"] == true)
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Decides, with what is known of the pod's DaemonSet, where it has one.
pub(super) fn fate(pod: &Value, rules: &Rules, set: Option<&Set>) -> Fate {
    if is_ending_too_long(pod, rules.skip_deleted_for, rules.now) {
        return Fate::Stay;
    }
    match set {
        None => {}
        Some(Set::Missing(_)) if rules.force => {}
        Some(Set::Missing(text) | Set::Unknown(text)) => return Fate::Refuse(text.clone()),
        Some(Set::There) if rules.ignore_daemon_sets => return Fate::StayWith(DAEMON_SET_WARNING),
        Some(Set::There) => return Fate::Refuse(DAEMON_SET_FATAL.to_owned()),
    }
    if pod.pointer(MIRROR).is_some() {
        return Fate::Stay;
    }
    if has_ended(pod) {
        return Fate::Leave;
    }
    // As upstream: each look at the pod replaces what an earlier one would have warned of, so that of local storage
    // nothing is told.
    if has_local_storage(pod) && !rules.delete_local_data {
        return Fate::Refuse(LOCAL_STORAGE_FATAL.to_owned());
    }
    match (controller(pod), rules.force) {
        (Some(_), _) => Fate::Leave,
        (None, true) => Fate::LeaveWith(UNMANAGED_WARNING),
        (None, false) => Fate::Refuse(UNMANAGED_FATAL.to_owned()),
    }
}

/// Whether a pod has been ending for longer than so many seconds.
pub(super) fn is_ending_too_long(pod: &Value, seconds: i64, now: Timestamp) -> bool {
    let since: Option<Timestamp> = text(pod, "/metadata/deletionTimestamp").parse().ok();
    seconds > 0 && since.is_some_and(|since| now.duration_since(since).as_secs() > seconds)
}

fn has_local_storage(pod: &Value) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    volumes.into_iter().flatten().any(|volume| volume["emptyDir"].is_object())
}

/// All warnings, those with the same words together.
pub(super) fn warnings(found: &[Found]) -> String {
    let warned = found.iter().filter_map(|found| Some((found.fate.warning()?, &found.pod)));
    let lines: Vec<_> = together(warned).map(|(text, pods)| format!("{text}: {pods}")).collect();
    lines.join("; ")
}

/// Why nothing happens.
pub(super) fn errors(found: &[Found]) -> Vec<String> {
    let refused = found.iter().filter_map(|found| match &found.fate {
        Fate::Refuse(text) => Some((text.as_str(), &found.pod)),
        _ => None,
    });
    together(refused).map(|(text, pods)| format!("cannot delete {text}: {pods}")).collect()
}

fn together<'a>(said: impl Iterator<Item = (&'a str, &'a Value)>) -> impl Iterator<Item = (&'a str, String)> {
    let mut pods: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (words, pod) in said {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        pods.entry(words).or_default().push(format!("{namespace}/{name}"));
    }
    pods.into_iter().map(|(text, pods)| (text, pods.join(", ")))
}
