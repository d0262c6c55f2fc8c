//! The answer to an apply that would take fields from others (upstream `internal/conflict.go`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::entries::{ManagerId, Operation};
use crate::schema::scalar::go_quote;
use crate::status::ApiError;
use crate::structured::{Conflict, Failure};

/// Fields and who has them.
pub(super) type Conflicts = Vec<Conflict<ManagerId>>;

/// 409 that names every field and who has it.
pub(super) fn error(conflicts: &Conflicts) -> ApiError {
    let causes = conflicts
        .iter()
        .map(|conflict| StatusCause {
            reason: Some("FieldManagerConflict".to_owned()),
            message: Some(format!("conflict with {}", shown(&conflict.manager))),
            field: Some(conflict.path.to_string()),
        })
        .collect();
    ApiError::new(409, "Conflict", message(conflicts)).with_causes(causes)
}

fn message(conflicts: &Conflicts) -> String {
    if let [one] = conflicts.as_slice() {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", shown(&one.manager), one.path);
    }
    let mut by_manager: BTreeMap<String, Vec<&Conflict<ManagerId>>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(conflict.manager.text()).or_default().push(conflict);
    }
    let mut lines = Vec::new();
    for own in by_manager.values() {
        lines.extend(own.first().map(|first| format!("conflicts with {}:", shown(&first.manager))));
        lines.extend(own.iter().map(|conflict| format!("- {}", conflict.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// A manager as people read it.
fn shown(id: &ManagerId) -> String {
    let mut text = go_quote(&id.manager);
    if !id.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", go_quote(&id.subresource)));
    }
    if id.operation == Operation::Update {
        text.push_str(&format!(" using {}", id.api_version));
    }
    text
}

/// A failure in words.
pub(super) fn text(failure: &Failure<ManagerId>) -> String {
    match failure {
        Failure::Conflicts(conflicts) => message(conflicts),
        Failure::Other(why) => why.clone(),
    }
}
