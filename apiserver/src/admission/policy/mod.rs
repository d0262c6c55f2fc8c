//! Admission policies: rules in the Common Expression Language that are objects of the API (upstream
//! `admission/plugin/policy`).
//!
//! [`source`] holds what is compiled of policies and their bindings, [`params`] finds parameters, [`validating`] and
//! [`mutating`] are the plugins.

pub(super) mod mutating;
mod params;
mod source;
pub(super) mod validating;

use super::Attributes;

/// Requests that no policy sees: about policies, lest none could be removed, and reviews, which store nothing.
const EXCLUDED: [(&str, &str); 10] = [
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

fn is_excluded(attributes: &Attributes<'_>) -> bool {
    EXCLUDED.iter().any(|(group, resource)| attributes.is_any(group, resource))
}
