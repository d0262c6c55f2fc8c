//! What was wrong with pods as they are stored: what becomes of them may go on being wrong that way.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, PodAffinityTerm, PodSpec, PodTemplateSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::Path;
use crate::pod as rules;

use super::super::affinity::{has_invalid_values, match_label_keys};
use super::super::meta::label_selector;
use super::super::resources::indivisible_pages;
use super::super::rules::list;
use super::super::security::{each_container, host_sysctl};
use super::super::volume::local_path;

/// Something that may not be in new pods, but was allowed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Amounts of huge pages that are no whole number of pages.
    HugePages,
    /// Init containers that run once and would be restarted by a resize.
    InitRestarts,
    /// Values that no label has, in the node affinity that is required.
    NodeValues,
    /// Such values in the selectors of the affinity to pods.
    SelectorValues,
    /// Label keys to spread by that the selector has too, or that come without one.
    SpreadKeys,
    /// Bad selectors to spread by.
    SpreadSelectors,
    /// Sysctls of a namespace that is the host's.
    Sysctls,
    /// Tokens in files outside of their volume.
    TokenPaths,
    /// Block devices in a user namespace.
    UserDevices,
}

/// The faults that a stored spec has.
pub(crate) fn of(old: Option<&PodSpec>) -> Vec<Fault> {
    let Some(spec) = old else { return Vec::new() };
    let all = [
        (Fault::HugePages, huge_pages(spec)),
        (Fault::InitRestarts, init_restarts(spec)),
        (Fault::NodeValues, node_values(spec)),
        (Fault::SelectorValues, selector_values(spec)),
        (Fault::SpreadKeys, spread_keys(spec)),
        (Fault::SpreadSelectors, spread_selectors(spec)),
        (Fault::Sysctls, sysctls(spec)),
        (Fault::TokenPaths, token_paths(spec)),
        (Fault::UserDevices, user_devices(spec)),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(fault, _)| fault).collect()
}

/// The faults that a stored template has.
pub(crate) fn of_template(old: Option<&PodTemplateSpec>) -> Vec<Fault> {
    of(old.and_then(|template| template.spec.as_ref()))
}

fn any_container(spec: &PodSpec, is_so: impl Fn(&Container) -> bool) -> bool {
    let mut found = false;
    each_container(spec, &Path::root(), |container, _| found |= is_so(container));
    found
}

fn huge_pages(spec: &PodSpec) -> bool {
    let indivisible = |amounts: Option<&BTreeMap<String, Quantity>>| {
        amounts.into_iter().flatten().any(|(name, value)| indivisible_pages(name, value))
    };
    indivisible(spec.overhead.as_ref())
        || any_container(spec, |container| {
            container
                .resources
                .as_ref()
                .is_some_and(|r| indivisible(r.limits.as_ref()) || indivisible(r.requests.as_ref()))
        })
}

fn init_restarts(spec: &PodSpec) -> bool {
    let mut once = list(&spec.init_containers).iter().filter(|container| !rules::is_sidecar(container));
    once.any(|container| {
        list(&container.resize_policy).iter().any(|p| p.restart_policy == "RestartContainer")
    })
}

fn node_values(spec: &PodSpec) -> bool {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_some_and(has_invalid_values)
}

fn selector_values(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let bad = |term: &PodAffinityTerm| {
        [&term.label_selector, &term.namespace_selector]
            .into_iter()
            .any(|selector| !label_selector(selector.as_ref(), false, &Path::root()).is_empty())
    };
    let any = |required: &Option<Vec<PodAffinityTerm>>, preferred: &Option<Vec<WeightedPodAffinityTerm>>| {
        list(required).iter().any(bad) || list(preferred).iter().any(|term| bad(&term.pod_affinity_term))
    };
    let near = affinity.pod_affinity.as_ref().is_some_and(|a| {
        any(
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let far = affinity.pod_anti_affinity.as_ref().is_some_and(|a| {
        any(
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    near || far
}

fn spread_keys(spec: &PodSpec) -> bool {
    list(&spec.topology_spread_constraints).iter().any(|constraint| {
        let mut errors = Vec::new();
        let selector = constraint.label_selector.as_ref();
        match_label_keys(list(&constraint.match_label_keys), &[], selector, &Path::root(), &mut errors);
        !errors.is_empty()
    })
}

fn spread_selectors(spec: &PodSpec) -> bool {
    list(&spec.topology_spread_constraints)
        .iter()
        .any(|c| !label_selector(c.label_selector.as_ref(), false, &Path::root()).is_empty())
}

fn sysctls(spec: &PodSpec) -> bool {
    let context = spec.security_context.as_ref();
    let all = context.map(|context| list(&context.sysctls)).unwrap_or_default();
    all.iter().any(|sysctl| host_sysctl(&sysctl.name, spec).is_some())
}

fn token_paths(spec: &PodSpec) -> bool {
    let projected = list(&spec.volumes).iter().filter_map(|volume| volume.projected.as_ref());
    let mut tokens =
        projected.flat_map(|p| list(&p.sources)).filter_map(|s| s.service_account_token.as_ref());
    tokens.any(|token| !local_path(&token.path, &Path::root()).is_empty())
}

fn user_devices(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
        && any_container(spec, |container| !list(&container.volume_devices).is_empty())
}

/// Whether a cost of deletion is no number as controllers read it.
pub(crate) fn is_bad_cost(cost: &str) -> bool {
    let canonical = cost.parse::<i32>().is_ok()
        && !cost.starts_with('+')
        && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
    !canonical
}
