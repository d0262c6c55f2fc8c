//! ClusterRoles that consist of others: their rules are those of all roles that their selectors match.
//! As upstream's pkg/controller/clusterroleaggregation.

use crate::common::Selector;
use crate::common::meta;
use crate::context::Context;
use client::controller::Action;
use client::kube::api::PostParams;
use client::{Api, WorkQueue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use std::sync::Arc;

/// Starts the controller.
pub fn start(cx: &Context) {
    let roles = cx.informer::<ClusterRole>();
    let queue = WorkQueue::new("ClusterRoleAggregator");
    let (all, keys) = (roles.clone(), queue.clone());
    // Any role may be a part of any other.
    roles.subscribe(move |_| {
        let aggregated = all.store().list().into_iter().filter(|role| role.aggregation_rule.is_some());
        aggregated.for_each(|role| keys.add(meta::key(&role.metadata)));
    });
    let (client, synced) = (cx.client.clone(), roles.clone());
    let synced = async move { synced.synced().await };
    cx.work("clusterrole-aggregation-controller", queue, 5, synced, move |key| {
        let (client, roles) = (client.clone(), roles.clone());
        async move {
            let Some(role) = roles.store().get(&key) else { return Ok(Action::Done) };
            if let Some(rules) = plan(&role, &roles.store().list()) {
                let api: Api<ClusterRole> = Api::all(client);
                let changed = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
                api.replace(&key.name, &PostParams::default(), &changed).await?;
            }
            Ok(Action::Done)
        }
    });
}

/// The rules that the role should have; `None` when it has them, or is no aggregate.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let selector = Selector::from_meta(Some(selector)).ok()?;
        let mut parts: Vec<_> = all
            .iter()
            .filter(|part| part.metadata.name != role.metadata.name)
            .filter(|part| selector.matches(meta::labels(&part.metadata)))
            .collect();
        parts.sort_by_key(|part| meta::name(&part.metadata).to_owned());
        for rule in parts.into_iter().flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    let have = role.rules.as_deref().unwrap_or_default();
    let same = have.len() == rules.len() && rules.iter().all(|rule| have.contains(rule));
    (!same).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    fn role(name: &str, label: &str, verbs: &[&str]) -> ClusterRole {
        let mut role = ClusterRole::default();
        role.metadata.name = Some(name.into());
        role.metadata.labels = Some([(label.to_owned(), "true".to_owned())].into());
        let rule = |verb: &&str| PolicyRule { verbs: vec![(*verb).to_owned()], ..Default::default() };
        role.rules = Some(verbs.iter().map(rule).collect());
        role
    }

    #[test]
    fn rules_are_collected_once_by_name() {
        let mut whole = role("whole", "x", &[]);
        whole.aggregation_rule = Some(AggregationRule {
            cluster_role_selectors: Some(vec![LabelSelector {
                match_labels: Some([("part".to_owned(), "true".to_owned())].into()),
                ..Default::default()
            }]),
        });
        let all: Vec<_> = [
            role("b", "part", &["list", "get"]),
            role("a", "part", &["get"]),
            role("c", "other", &["delete"]),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let rules = plan(&whole, &all).expect("it has none");
        let verbs: Vec<_> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "list"]);
        whole.rules = Some(rules);
        assert_eq!(plan(&whole, &all), None);
        assert_eq!(plan(&all[0], &all), None);
    }
}
