//! What the growth of a volume asks of this node. Pure; as upstream's `operationexecutor/node_expander.go`.
//!
//! Whoever grows a volume at its driver writes into the claim's status to which size (`allocatedResources`), and that
//! nodes have their part to do (`NodeResizePending`). A resizer of before knows neither, and leaves it to the node to find
//! that the claim's status shows less than the volume has.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::quantity;

/// Says that nodes need do nothing when a claim of many writers grows.
const NOT_REQUIRED: &str = "volume.kubernetes.io/node-expansion-not-required";
const STORAGE: &str = "storage";
/// Conditions that are about growing.
const CONDITIONS: [&str; 4] =
    ["FileSystemResizePending", "Resizing", "ControllerResizeError", "NodeResizeError"];

/// What is known of a volume on this node while pods use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The size it has here, as far as that is known.
    pub(super) size: i64,
    /// Its driver does not let it grow while it is used.
    pub(super) in_use: bool,
    /// Its driver has refused for good.
    pub(super) failed: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing, or not yet.
    Nothing,
    /// It counts as having this size: nothing was left to be done on nodes.
    Counts(i64),
    /// The driver is to be told.
    Grow(Growth),
}

/// A growth that the driver is told of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Growth {
    /// To which size.
    pub(super) size: Quantity,
    /// What is written into the claim's status.
    pub(super) written: Written,
    /// If it fails, whoever grows it must find another size.
    pub(super) hopeless: bool,
}

/// What is written of a growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Each step.
    Steps,
    /// The end of it.
    End,
    /// Nothing: another node has written it.
    Nothing,
}

/// Decides.
pub(super) fn decide(claim: &PersistentVolumeClaim, volume: &PersistentVolume, known: Known) -> Step {
    let wanted = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get(STORAGE));
    let Some(wanted) = wanted.filter(|wanted| quantity::value(wanted) > known.size && !known.in_use) else {
        return Step::Nothing;
    };
    let none = PersistentVolumeClaimStatus::default();
    let status = claim.status.as_ref().unwrap_or(&none);
    let state = status.allocated_resource_statuses.as_ref().and_then(|all| all.get(STORAGE));
    let Some(allocated) = status.allocated_resources.as_ref().and_then(|all| all.get(STORAGE)) else {
        let plain = state.is_none() && status.allocated_resources.is_none();
        let growth = Growth { size: wanted.clone(), written: Written::End, hopeless: false };
        return if plain { Step::Grow(growth) } else { Step::Nothing };
    };
    let size = quantity::value(allocated);
    let asked = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get(STORAGE));
    let hopeless = known.failed && asked.map(quantity::value) != Some(size);
    let grow = |written| Step::Grow(Growth { size: allocated.clone(), written, hopeless });
    let is_written = state.is_none() && capacity(claim) >= size;
    match state.map(String::as_str) {
        None if is_written && grows_on_every_node(claim) => grow(Written::Nothing),
        None if is_written => Step::Counts(size),
        Some("NodeResizePending" | "NodeResizeInProgress") => grow(Written::Steps),
        _ => Step::Nothing,
    }
}

/// The size that the claim's status shows.
pub(super) fn capacity(claim: &PersistentVolumeClaim) -> i64 {
    let shown = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get(STORAGE));
    shown.map_or(0, quantity::value)
}

fn grows_on_every_node(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let notes = claim.metadata.annotations.as_ref();
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteMany"))
        && !notes.is_some_and(|notes| notes.contains_key(NOT_REQUIRED))
}

/// The change of a claim when the driver is about to be told.
pub(super) fn begun(claim: &PersistentVolumeClaim) -> Value {
    json!({"metadata": {"resourceVersion": claim.metadata.resource_version},
           "status": {"allocatedResourceStatuses": {STORAGE: "NodeResizeInProgress"}}})
}

/// The change of a claim whose volume has grown.
pub(super) fn ended(claim: &PersistentVolumeClaim, size: &Quantity, written: Written) -> Value {
    let conditions = claim.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ours = conditions.filter(|condition| CONDITIONS.contains(&condition.type_.as_str()));
    let removed: Vec<_> =
        ours.map(|condition| json!({"$patch": "delete", "type": condition.type_})).collect();
    let mut status = json!({"capacity": {STORAGE: size}});
    if !removed.is_empty() {
        status["conditions"] = json!(removed);
    }
    if written == Written::Steps {
        status["allocatedResourceStatuses"] = json!({STORAGE: null});
    }
    json!({"metadata": {"resourceVersion": claim.metadata.resource_version}, "status": status})
}

/// The change of a claim whose volume could not grow.
pub(super) fn failed(infeasible: bool, error: &str, now: jiff::Timestamp) -> Value {
    let condition = json!({"type": "NodeResizeError", "status": "True", "lastTransitionTime": api_time(now),
                           "message": format!("failed to expand pvc with {error}")});
    let mut status = json!({"conditions": [condition]});
    if infeasible {
        status["allocatedResourceStatuses"] = json!({STORAGE: "NodeResizeInfeasible"});
    }
    json!({"status": status})
}

/// Times in the API have no parts of seconds.
fn api_time(now: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn claim(more: &str) -> PersistentVolumeClaim {
        let text = format!(
            "metadata: {{name: c, namespace: ns, resourceVersion: '7'{more}}}\n\
             spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 2Gi}}}}}}\n\
             status: {{capacity: {{storage: 1Gi}}}}"
        );
        serde_saphyr::from_str(&text).expect("valid")
    }

    fn volume(size: &str) -> PersistentVolume {
        serde_saphyr::from_str(&format!("metadata: {{name: pv}}\nspec: {{capacity: {{storage: {size}}}}}"))
            .expect("valid")
    }

    /// A claim whose status has this capacity, allocation and state.
    fn growing(capacity: &str, allocated: &str, state: &str) -> PersistentVolumeClaim {
        let mut claim = claim("");
        let status = claim.status.get_or_insert_default();
        let storage = |text: &str| [(STORAGE.to_owned(), Quantity(text.to_owned()))].into();
        status.capacity = Some(storage(capacity));
        status.allocated_resources = (!allocated.is_empty()).then(|| storage(allocated));
        status.allocated_resource_statuses =
            (!state.is_empty()).then(|| [(STORAGE.to_owned(), state.to_owned())].into());
        claim
    }

    fn known(gibibytes: i64) -> Known {
        Known { size: gibibytes * GIB, ..Known::default() }
    }

    #[test]
    fn a_volume_grows_when_it_is_told_so() {
        let steps =
            |hopeless| Step::Grow(Growth { size: Quantity("2Gi".into()), written: Written::Steps, hopeless });
        let end = Step::Grow(Growth { size: Quantity("2Gi".into()), written: Written::End, hopeless: false });
        for (what, claim, known, expected) in [
            ("large enough", growing("1Gi", "2Gi", "NodeResizePending"), known(2), Step::Nothing),
            ("pending", growing("1Gi", "2Gi", "NodeResizePending"), known(1), steps(false)),
            ("begun before a restart", growing("1Gi", "2Gi", "NodeResizeInProgress"), known(1), steps(false)),
            (
                "at its driver still",
                growing("1Gi", "2Gi", "ControllerResizeInProgress"),
                known(1),
                Step::Nothing,
            ),
            ("infeasible", growing("1Gi", "2Gi", "NodeResizeInfeasible"), known(1), Step::Nothing),
            (
                "failed here before",
                growing("1Gi", "2Gi", "NodeResizePending"),
                Known { failed: true, ..known(1) },
                steps(false),
            ),
            (
                "not while it is used",
                growing("1Gi", "2Gi", "NodeResizePending"),
                Known { in_use: true, ..known(1) },
                Step::Nothing,
            ),
            ("grown at its driver alone", growing("2Gi", "2Gi", ""), known(1), Step::Counts(2 * GIB)),
            ("not begun", growing("1Gi", "2Gi", ""), known(1), Step::Nothing),
            ("a resizer of before", growing("1Gi", "", ""), known(1), end),
        ] {
            assert_eq!(decide(&claim, &volume("2Gi"), known), expected, "{what}");
        }
    }

    #[test]
    fn a_size_that_nobody_asks_for_any_more_is_given_up_when_it_fails_again() {
        let mut claim = growing("1Gi", "3Gi", "NodeResizePending");
        let failed = Known { failed: true, ..known(1) };
        for (asked, expected) in [("2Gi", true), ("3Gi", false)] {
            let spec = claim.spec.get_or_insert_default().resources.get_or_insert_default();
            spec.requests = Some([(STORAGE.to_owned(), Quantity(asked.into()))].into());
            let Step::Grow(growth) = decide(&claim, &volume("3Gi"), failed) else { panic!("it grows") };
            assert_eq!(growth.hopeless, expected, "{asked}");
        }
    }

    #[test]
    fn claims_of_many_writers_grow_on_every_node() {
        let mut claim = growing("2Gi", "2Gi", "");
        claim.spec.get_or_insert_default().access_modes = Some(vec!["ReadWriteMany".into()]);
        let grown = |claim: &PersistentVolumeClaim| match decide(claim, &volume("2Gi"), known(1)) {
            Step::Grow(growth) => Some(growth.written),
            _ => None,
        };
        assert_eq!(grown(&claim), Some(Written::Nothing));
        claim.metadata.annotations = Some([(NOT_REQUIRED.to_owned(), "true".to_owned())].into());
        assert_eq!(grown(&claim), None);
    }

    #[test]
    fn only_what_is_about_growing_is_taken_from_a_claim() {
        let mut claim = growing("1Gi", "2Gi", "NodeResizeInProgress");
        let conditions = "[{type: FileSystemResizePending, status: 'True'}, {type: Other, status: 'True'}]";
        claim.status.get_or_insert_default().conditions = serde_saphyr::from_str(conditions).expect("valid");
        let size = Quantity("2Gi".into());
        assert_eq!(
            ended(&claim, &size, Written::Steps),
            json!({"metadata": {"resourceVersion": "7"}, "status": {
                "capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": null},
                "conditions": [{"$patch": "delete", "type": "FileSystemResizePending"}]}})
        );
        claim.status.get_or_insert_default().conditions = None;
        assert_eq!(
            ended(&claim, &size, Written::End),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"capacity": {"storage": "2Gi"}}})
        );
    }
}
