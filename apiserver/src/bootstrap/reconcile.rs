//! Brings stored roles and bindings up to the default policy (upstream `component-helpers/auth/rbac/reconciliation`).
//!
//! Missing objects are made. Existing ones with the autoupdate annotation get the rules, subjects, labels and
//! annotations they lack; nothing is taken away from them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use api::status::ApiError;
use client::Client;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::policy::{AUTOUPDATE, Policy};
use crate::authz::{from_client, rules};

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan<K> {
    /// Nothing.
    Keep,
    /// Write this in its place.
    Update(K),
    /// It refers to another role, which cannot be changed: delete it and make it anew.
    Recreate,
}

/// A kind of object that can be reconciled.
pub trait Reconcile: kube::Resource<DynamicType = ()> + Clone + Debug + PartialEq + Sized {
    /// Decides, for an object that exists.
    fn plan(existing: &Self, expected: &Self) -> Plan<Self>;
}

fn plan_role<K: kube::Resource<DynamicType = ()> + Clone>(
    existing: &K,
    expected: &K,
    rules_of: impl Fn(&mut K) -> &mut Option<Vec<PolicyRule>>,
    aggregated: bool,
) -> Plan<K> {
    let (mut new, mut wanted) = (existing.clone(), expected.clone());
    let mut changed = merge_meta(&mut new, expected);
    if !aggregated {
        let wanted = rules_of(&mut wanted).clone().unwrap_or_default();
        let owned = rules_of(&mut new).clone().unwrap_or_default();
        let missing = rules::not_covered(&owned, &wanted);
        if !missing.is_empty() {
            rules_of(&mut new).get_or_insert_default().extend(missing);
            changed = true;
        }
    }
    if changed { Plan::Update(new) } else { Plan::Keep }
}

impl Reconcile for ClusterRole {
    fn plan(existing: &Self, expected: &Self) -> Plan<Self> {
        let aggregated = expected.aggregation_rule.is_some();
        let mut plan = plan_role(existing, expected, |role| &mut role.rules, aggregated);
        let selectors = |role: &Self| {
            role.aggregation_rule
                .as_ref()
                .and_then(|rule| rule.cluster_role_selectors.clone())
                .unwrap_or_default()
        };
        let known = selectors(existing);
        let missing: Vec<_> =
            selectors(expected).into_iter().filter(|wanted| !known.contains(wanted)).collect();
        if !missing.is_empty() {
            let mut new = if let Plan::Update(new) = plan { new } else { existing.clone() };
            let rule = new.aggregation_rule.get_or_insert_default();
            rule.cluster_role_selectors.get_or_insert_default().extend(missing);
            plan = Plan::Update(new);
        }
        plan
    }
}

impl Reconcile for Role {
    fn plan(existing: &Self, expected: &Self) -> Plan<Self> {
        plan_role(existing, expected, |role| &mut role.rules, false)
    }
}

fn plan_binding<K: kube::Resource<DynamicType = ()> + Clone>(
    existing: &K,
    expected: &K,
    same_role: bool,
    subjects_of: impl Fn(&mut K) -> &mut Option<Vec<Subject>>,
) -> Plan<K> {
    if !same_role {
        return Plan::Recreate;
    }
    let (mut new, mut wanted) = (existing.clone(), expected.clone());
    let mut changed = merge_meta(&mut new, expected);
    for subject in subjects_of(&mut wanted).clone().unwrap_or_default() {
        let subjects = subjects_of(&mut new).get_or_insert_default();
        if !subjects.contains(&subject) {
            subjects.push(subject);
            changed = true;
        }
    }
    if changed { Plan::Update(new) } else { Plan::Keep }
}

impl Reconcile for ClusterRoleBinding {
    fn plan(existing: &Self, expected: &Self) -> Plan<Self> {
        plan_binding(existing, expected, existing.role_ref == expected.role_ref, |binding| {
            &mut binding.subjects
        })
    }
}

impl Reconcile for RoleBinding {
    fn plan(existing: &Self, expected: &Self) -> Plan<Self> {
        plan_binding(existing, expected, existing.role_ref == expected.role_ref, |binding| {
            &mut binding.subjects
        })
    }
}

/// Adds missing labels and annotations; those that are there keep their values.
fn merge_meta<K: kube::Resource>(new: &mut K, expected: &K) -> bool {
    fn merge(own: &mut Option<BTreeMap<String, String>>, wanted: Option<&BTreeMap<String, String>>) -> bool {
        let mut changed = false;
        for (key, value) in wanted.into_iter().flatten() {
            let own = own.get_or_insert_default();
            if !own.contains_key(key) {
                own.insert(key.clone(), value.clone());
                changed = true;
            }
        }
        changed
    }
    let wanted = expected.meta();
    let labels = merge(&mut new.meta_mut().labels, wanted.labels.as_ref());
    merge(&mut new.meta_mut().annotations, wanted.annotations.as_ref()) || labels
}

/// Brings everything up to the policy.
pub async fn policy(client: &Client, policy: &Policy) -> Result<(), ApiError> {
    let all = |namespace: &Option<String>| namespace.clone();
    // Bindings refer to roles, so roles come first.
    let cluster_roles = Api::<ClusterRole>::all(client.clone());
    kind(&cluster_roles, &policy.cluster_roles).await?;
    for namespace in namespaces(policy.roles.iter().map(|role| all(&role.metadata.namespace))) {
        let of = |meta: &Option<String>| meta.as_deref() == Some(namespace.as_str());
        let roles: Vec<_> =
            policy.roles.iter().filter(|role| of(&role.metadata.namespace)).cloned().collect();
        kind(&Api::namespaced(client.clone(), &namespace), &roles).await?;
        let bindings: Vec<_> =
            policy.role_bindings.iter().filter(|binding| of(&binding.metadata.namespace)).cloned().collect();
        kind(&Api::namespaced(client.clone(), &namespace), &bindings).await?;
    }
    kind(&Api::<ClusterRoleBinding>::all(client.clone()), &policy.cluster_role_bindings).await
}

fn namespaces(all: impl Iterator<Item = Option<String>>) -> Vec<String> {
    let mut all: Vec<String> = all.flatten().collect();
    all.sort();
    all.dedup();
    all
}

async fn kind<K>(api: &Api<K>, expected: &[K]) -> Result<(), ApiError>
where
    K: Reconcile + Serialize + DeserializeOwned + Send + Sync,
{
    let list = api.list(&ListParams::default()).await.map_err(from_client)?;
    let existing: HashMap<String, K> =
        list.items.into_iter().map(|object| (object.name_any(), object)).collect();
    super::each(expected, |expected| {
        let existing = existing.get(&expected.name_any());
        async move { one(api, existing, expected).await }
    })
    .await
}

async fn one<K>(api: &Api<K>, existing: Option<&K>, expected: &K) -> Result<(), ApiError>
where
    K: Reconcile + Serialize + DeserializeOwned + Send + Sync,
{
    let params = PostParams::default();
    let name = expected.name_any();
    let result = match existing {
        None => api.create(&params, expected).await.map(drop),
        Some(existing) if existing.annotations().get(AUTOUPDATE).is_none_or(|value| value != "true") => {
            return Ok(());
        }
        Some(existing) => match K::plan(existing, expected) {
            Plan::Keep => return Ok(()),
            Plan::Update(new) => api.replace(&name, &params, &new).await.map(drop),
            Plan::Recreate => {
                api.delete(&name, &DeleteParams::default()).await.map_err(from_client)?;
                api.create(&params, expected).await.map(drop)
            }
        },
    };
    result.map_err(from_client).or_else(super::done_by_others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::policy::policy;

    fn view() -> ClusterRole {
        let found = policy().cluster_roles.iter().find(|role| role.name_any() == "system:aggregate-to-view");
        found.expect("in the table").clone()
    }

    #[test]
    fn what_is_complete_is_kept() {
        assert_eq!(ClusterRole::plan(&view(), &view()), Plan::Keep);
        let mut more = view();
        more.metadata.labels.get_or_insert_default().insert("own".into(), "label".into());
        assert_eq!(ClusterRole::plan(&more, &view()), Plan::Keep);
    }

    #[test]
    fn missing_rules_are_added_and_nothing_is_removed() {
        let mut less = view();
        let first = less.rules.as_mut().expect("rules").remove(0);
        let Plan::Update(new) = ClusterRole::plan(&less, &view()) else { panic!("must be updated") };
        let rules = new.rules.expect("rules");
        assert!(rules::not_covered(&rules, &[first]).is_empty());
        assert!(rules.len() > less.rules.expect("rules").len());
    }

    #[test]
    fn bindings_get_missing_subjects_or_are_made_anew() {
        let expected = policy().cluster_role_bindings[0].clone();
        let mut existing = expected.clone();
        existing.subjects = None;
        assert_eq!(ClusterRoleBinding::plan(&existing, &expected), Plan::Update(expected.clone()));
        existing.role_ref.name = "other".into();
        assert_eq!(ClusterRoleBinding::plan(&existing, &expected), Plan::Recreate);
    }
}
