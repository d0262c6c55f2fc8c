//! `rbac.authorization.k8s.io`.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::selector::LabelSelector;

use super::golang;
use super::meta::{self, has_invalid_values, label_selector};
use super::rules::{list, text, to_value};

const GROUP: &str = "rbac.authorization.k8s.io";

fn name(name: &str, _: bool) -> Vec<String> {
    format::path_segment_name(name)
}

fn metadata(meta: &ObjectMeta, namespaced: bool) -> ErrorList {
    meta::validate_core(meta, namespaced, name, &Path::new("metadata"))
}

fn metadata_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    meta::validate_update_core(new, old, &Path::new("metadata"))
}

/// A new role.
pub(crate) fn role(role: &Role) -> ErrorList {
    let mut errors = metadata(&role.metadata, true);
    rules(list(&role.rules), true, &mut errors);
    errors
}

/// A changed role.
pub(crate) fn role_update(new: &Role, old: &Role) -> ErrorList {
    let mut errors = role(new);
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    errors
}

/// A new cluster role.
pub(crate) fn cluster_role(role: &ClusterRole) -> ErrorList {
    cluster_role_with(role, false)
}

fn cluster_role_with(role: &ClusterRole, allow_invalid: bool) -> ErrorList {
    let mut errors = metadata(&role.metadata, false);
    rules(list(&role.rules), false, &mut errors);
    let Some(aggregation) = &role.aggregation_rule else { return errors };
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = list(&aggregation.cluster_role_selectors);
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors.iter().enumerate() {
        let path = path.index(i);
        errors.extend(label_selector(Some(selector), allow_invalid, &path));
        if LabelSelector::from_meta(Some(selector)).is_err() {
            errors.invalid(&path, serde_json::Value::Null, "invalid label selector.");
        }
    }
    errors
}

/// A changed cluster role.
pub(crate) fn cluster_role_update(new: &ClusterRole, old: &ClusterRole) -> ErrorList {
    let selectors = old.aggregation_rule.iter().flat_map(|rule| list(&rule.cluster_role_selectors));
    let allow_invalid = selectors.into_iter().any(|selector| has_invalid_values(Some(selector)));
    let mut errors = cluster_role_with(new, allow_invalid);
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    errors
}

fn rules(rules: &[PolicyRule], namespaced: bool, errors: &mut ErrorList) {
    for (i, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(i);
        if rule.verbs.is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(&rule.non_resource_urls);
        if !urls.is_empty() {
            let at = path.child("nonResourceURLs");
            if namespaced {
                errors.invalid(&at, urls.to_vec(), "namespaced rules cannot apply to non-resource URLs");
            }
            let resources = [&rule.api_groups, &rule.resources, &rule.resource_names];
            if resources.iter().any(|names| !list(names).is_empty()) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&at, urls.to_vec(), detail);
            }
            continue;
        }
        if list(&rule.api_groups).is_empty() {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if list(&rule.resources).is_empty() {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn binding(
    reference: &RoleRef,
    kinds: &[&str],
    subjects: &[Subject],
    namespaced: bool,
    errors: &mut ErrorList,
) {
    let path = Path::new("roleRef");
    errors.one_of(&path.child("apiGroup"), text(&reference.api_group), &[GROUP]);
    errors.one_of(&path.child("kind"), &reference.kind, kinds);
    match reference.name.as_str() {
        "" => errors.required(&path.child("name"), ""),
        name => errors.messages(&path.child("name"), name, format::path_segment_name(name)),
    }
    for (i, one) in subjects.iter().enumerate() {
        subject(one, namespaced, &Path::new("subjects").index(i), errors);
    }
}

fn subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    if subject.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                let messages = format::dns1123_subdomain(&subject.name);
                errors.messages(&path.child("name"), &subject.name, messages);
            }
            errors.one_of(&path.child("apiGroup"), group, &[""]);
            if !namespaced && text(&subject.namespace).is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&path.child("apiGroup"), group, &[GROUP]),
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

fn fixed_role(new: &RoleRef, old: &RoleRef, errors: &mut ErrorList) {
    if new != old {
        let shown = golang::show("rbac.RoleRef", &to_value(new));
        errors.push(Error::invalid_shown(&Path::new("roleRef"), shown, "cannot change roleRef"));
    }
}

/// A new role binding.
pub(crate) fn role_binding(object: &RoleBinding) -> ErrorList {
    let mut errors = metadata(&object.metadata, true);
    binding(&object.role_ref, &["Role", "ClusterRole"], list(&object.subjects), true, &mut errors);
    errors
}

/// A changed role binding.
pub(crate) fn role_binding_update(new: &RoleBinding, old: &RoleBinding) -> ErrorList {
    let mut errors = role_binding(new);
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    fixed_role(&new.role_ref, &old.role_ref, &mut errors);
    errors
}

/// A new cluster role binding.
pub(crate) fn cluster_role_binding(object: &ClusterRoleBinding) -> ErrorList {
    let mut errors = metadata(&object.metadata, false);
    binding(&object.role_ref, &["ClusterRole"], list(&object.subjects), false, &mut errors);
    errors
}

/// A changed cluster role binding.
pub(crate) fn cluster_role_binding_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> ErrorList {
    let mut errors = cluster_role_binding(new);
    errors.extend(metadata_update(&new.metadata, &old.metadata));
    fixed_role(&new.role_ref, &old.role_ref, &mut errors);
    errors
}
