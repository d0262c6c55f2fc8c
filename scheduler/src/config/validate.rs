//! Checks a configuration as a whole, with upstream's messages (`apis/config/validation`).

use std::collections::BTreeSet;
use std::time::Duration;

use api::field::{Error, Path};
use api::format;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::args::{
    BalancedAllocationArgs, DefaultPreemptionArgs, DynamicResourcesArgs, FitArgs, InterPodAffinityArgs,
    PodTopologySpreadArgs, ResourceSpec, ShapePoint, VolumeBindingArgs,
};
use super::{Arguments, ExtenderConfiguration, KubeSchedulerConfiguration, PluginSet, Profile};
use crate::resources::is_extended;

/// Plugins that there are no more.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

type Errors = Vec<Error>;

/// All that is wrong, as one text.
///
/// # Errors
/// Something is wrong.
pub fn validate(config: &KubeSchedulerConfiguration) -> Result<(), String> {
    let mut errors = Errors::new();
    let root = |name: &str| Path::new(name);
    let election = &config.leader_election;
    let lock = election.resource_lock.as_deref().unwrap_or_default();
    if election.leader_elect.unwrap_or(true) && lock != "leases" {
        let path = root("leaderElection").child("resourceLock");
        errors.push(Error::invalid(&path, lock, "resourceLock value must be \"leases\""));
    }
    let parallelism = config.parallelism.unwrap_or(16);
    if parallelism <= 0 {
        let detail = "should be an integer value greater than zero";
        errors.push(Error::invalid(&root("parallelism"), parallelism, detail));
    }
    let profiles = root("profiles");
    for (at, profile) in config.profiles.iter().enumerate() {
        let path = profiles.index(at);
        validate_profile(profile, &path, &mut errors);
        let name = profile.scheduler_name.as_deref().unwrap_or_default();
        let before = config.profiles[..at].iter().position(|p| p.scheduler_name.as_deref() == Some(name));
        if let Some(before) = before {
            let other = profiles.index(before).child("schedulerName");
            errors.push(Error::duplicate(&path.child("schedulerName"), other.as_str()));
        }
    }
    validate_queue_sort(config, &profiles, &mut errors);
    percentage(config.percentage_of_nodes_to_score, &root("percentageOfNodesToScore"), &mut errors);
    let initial = config.pod_initial_backoff_seconds.unwrap_or(1);
    let max = config.pod_max_backoff_seconds.unwrap_or(10);
    if initial <= 0 {
        errors.push(Error::invalid(&root("podInitialBackoffSeconds"), initial, "must be greater than 0"));
    }
    if max < initial {
        let detail = "must be greater than or equal to PodInitialBackoffSeconds";
        errors.push(Error::invalid(&root("podMaxBackoffSeconds"), max, detail));
    }
    validate_extenders(&config.extenders, &root("extenders"), &mut errors);
    aggregate(&errors)
}

/// As upstream prints several errors.
fn aggregate(errors: &[Error]) -> Result<(), String> {
    let mut messages: Vec<String> = Vec::new();
    for error in errors {
        let message = error.to_string();
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    match messages.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn percentage(value: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        errors.push(Error::invalid(path, value, "not in valid range [0-100]"));
    }
}

fn validate_profile(profile: &Profile, path: &Path, errors: &mut Errors) {
    if profile.scheduler_name.as_deref().unwrap_or_default().is_empty() {
        errors.push(Error::required(&path.child("schedulerName"), ""));
    }
    percentage(profile.percentage_of_nodes_to_score, &path.child("percentageOfNodesToScore"), errors);
    for (point, set) in profile.plugins.points() {
        removed_plugins(set, &path.child("plugins").child(point), errors);
    }
    let mut seen = BTreeSet::new();
    for (at, config) in profile.plugin_config.iter().enumerate() {
        let path = path.child("pluginConfig").index(at);
        if !seen.insert(&config.name) {
            errors.push(Error::duplicate(&path, config.name.as_str()));
        }
        if REMOVED.contains(&config.name.as_str()) {
            errors.push(Error::invalid(&path, config.name.as_str(), removed()));
        }
    }
    match profile.arguments() {
        Ok(arguments) => {
            let of = |plugin: &str| {
                let at = profile.plugin_config.iter().position(|config| config.name == plugin);
                at.map(|at| path.child("pluginConfig").index(at).child("args"))
            };
            validate_arguments(&arguments, of, errors);
        }
        Err((at, error)) => {
            errors.push(Error::invalid_omitted(&path.child("pluginConfig").index(at), error));
        }
    }
}

fn removed() -> String {
    let version = super::API_VERSION;
    format!("was invalid in version {version:?} (KubeSchedulerConfiguration is version {version:?})")
}

fn removed_plugins(set: &PluginSet, path: &Path, errors: &mut Errors) {
    for (at, plugin) in set.enabled.iter().enumerate().filter(|(_, p)| REMOVED.contains(&p.name.as_str())) {
        errors.push(Error::invalid(&path.child("enabled").index(at), plugin.name.as_str(), removed()));
    }
}

fn validate_queue_sort(config: &KubeSchedulerConfiguration, path: &Path, errors: &mut Errors) {
    let Some(first) = config.profiles.first() else { return };
    let sort = |profile: &'_ Profile| profile.plugins.queue_sort.clone();
    let count = first.plugins.queue_sort.enabled.len();
    if count > 1 {
        let path = path.index(0).child("plugins").child("queueSort").child("Enabled");
        errors.push(Error::invalid(&path, count as i64, "only one queue sort plugin can be enabled"));
    }
    for (at, profile) in config.profiles.iter().enumerate().skip(1) {
        if sort(profile) != sort(first) {
            let path = path.index(at).child("plugins").child("queueSort");
            errors.push(Error::invalid_omitted(&path, "must be the same for all profiles"));
        }
    }
}

fn validate_extenders(extenders: &[ExtenderConfiguration], path: &Path, errors: &mut Errors) {
    let mut managed = BTreeSet::new();
    for (at, extender) in extenders.iter().enumerate() {
        let path = path.index(at);
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let detail = "must have a positive weight applied to it";
            errors.push(Error::invalid(&path.child("weight"), extender.weight, detail));
        }
        for (at, resource) in extender.managed_resources.iter().enumerate() {
            let path = path.child("managedResources").index(at).child("name");
            let name = resource.name.as_str();
            let problems = format::label_key(name);
            if problems.is_empty() && !is_extended(name) {
                errors.push(Error::invalid(&path, name, "is an invalid extended resource name"));
            }
            errors.extend(problems.into_iter().map(|problem| Error::invalid(&path, name, problem)));
            if !managed.insert(name) {
                errors.push(Error::invalid(&path, name, "duplicate extender managed resource name"));
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        errors.push(Error::invalid(path, value, "only one extender can implement bind"));
    }
}

/// Arguments that were given; `of` knows where.
fn validate_arguments(arguments: &Arguments, of: impl Fn(&str) -> Option<Path>, errors: &mut Errors) {
    if let Some(path) = of("DefaultPreemption") {
        default_preemption(&arguments.default_preemption, &path, errors);
    }
    if let Some(path) = of("DynamicResources") {
        dynamic_resources(arguments.dynamic_resources, &path, errors);
    }
    if let Some(path) = of("InterPodAffinity") {
        inter_pod_affinity(&arguments.inter_pod_affinity, &path, errors);
    }
    if let Some(path) = of("PodTopologySpread") {
        pod_topology_spread(&arguments.pod_topology_spread, &path, errors);
    }
    if let Some(path) = of("NodeResourcesBalancedAllocation") {
        balanced_allocation(&arguments.balanced_allocation, &path, errors);
    }
    if let Some(path) = of("NodeResourcesFit") {
        fit(&arguments.fit, &path, errors);
    }
    if let Some(path) = of("VolumeBinding") {
        volume_binding(&arguments.volume_binding, &path, errors);
    }
}

fn dynamic_resources(args: DynamicResourcesArgs, path: &Path, errors: &mut Errors) {
    if args.binding_timeout < Duration::from_secs(1) {
        let path = path.child("bindingTimeout");
        let value = format!("{}ms", args.binding_timeout.as_millis());
        errors.push(Error::invalid(&path, value, "must be at least 1 second"));
    }
}

fn default_preemption(args: &DefaultPreemptionArgs, path: &Path, errors: &mut Errors) {
    let (share, least) = (path.child("minCandidateNodesPercentage"), path.child("minCandidateNodesAbsolute"));
    let (percentage, absolute) = (args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute);
    if !(0..=100).contains(&percentage) {
        errors.push(Error::invalid(&share, percentage, "not in valid range [0, 100]"));
    }
    if absolute < 0 {
        errors.push(Error::invalid(&least, absolute, "not in valid range [0, inf)"));
    }
    if percentage == 0 && absolute == 0 {
        let zero = |other: &str| format!("cannot be zero at the same time as {other}");
        errors.push(Error::invalid(&share, percentage, zero("minCandidateNodesAbsolute")));
        errors.push(Error::invalid(&least, absolute, zero("minCandidateNodesPercentage")));
    }
}

fn inter_pod_affinity(args: &InterPodAffinityArgs, path: &Path, errors: &mut Errors) {
    let weight = args.hard_pod_affinity_weight;
    if !(0..=100).contains(&weight) {
        let path = path.child("hardPodAffinityWeight");
        errors.push(Error::invalid(&path, weight, "not in valid range [0, 100]"));
    }
}

fn pod_topology_spread(args: &PodTopologySpreadArgs, path: &Path, errors: &mut Errors) {
    let (kind, kind_path) = (args.defaulting_type.as_str(), path.child("defaultingType"));
    if !matches!(kind, "System" | "List") {
        errors.push(Error::not_supported(&kind_path, kind, &["System", "List"]));
    } else if kind == "System" && !args.default_constraints.is_empty() {
        errors.push(Error::invalid(&kind_path, kind, "when .defaultConstraints are not empty"));
    }
    let all = path.child("defaultConstraints");
    for (at, constraint) in args.default_constraints.iter().enumerate() {
        default_constraint(constraint, &all.index(at), errors);
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key
                && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if args.default_constraints[..at].iter().any(same) {
            let value = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(Error::duplicate(&all.index(at), value));
        }
    }
}

fn default_constraint(constraint: &TopologySpreadConstraint, path: &Path, errors: &mut Errors) {
    if constraint.max_skew <= 0 {
        let path = path.child("maxSkew");
        errors.push(Error::invalid(&path, constraint.max_skew, "not in valid range (0, inf)"));
    }
    let key = constraint.topology_key.as_str();
    if key.is_empty() {
        errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
    } else {
        label_name(key, &path.child("topologyKey"), errors);
    }
    match constraint.when_unsatisfiable.as_str() {
        "" => errors.push(Error::required(&path.child("whenUnsatisfiable"), "can not be empty")),
        "DoNotSchedule" | "ScheduleAnyway" => {}
        other => {
            let known = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(Error::not_supported(&path.child("whenUnsatisfiable"), other, &known));
        }
    }
    if constraint.label_selector.is_some() {
        let detail = "constraint must not define a selector, as they deduced for each pod";
        errors.push(Error::forbidden(&path.child("labelSelector"), detail));
    }
}

fn label_name(name: &str, path: &Path, errors: &mut Errors) {
    errors.extend(format::label_key(name).into_iter().map(|problem| Error::invalid(path, name, problem)));
}

fn balanced_allocation(args: &BalancedAllocationArgs, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (at, resource) in args.resources.iter().enumerate() {
        let path = path.child("resources").index(at);
        if !seen.insert(&resource.name) {
            errors.push(Error::duplicate(&path.child("name"), resource.name.as_str()));
        }
        if resource.weight != 1 {
            errors.push(Error::invalid(&path.child("weight"), resource.weight, "must be 1"));
        }
    }
}

fn fit(args: &FitArgs, path: &Path, errors: &mut Errors) {
    for (at, name) in args.ignored_resources.iter().enumerate() {
        label_name(name, &path.child("ignoredResources").index(at), errors);
    }
    for (at, group) in args.ignored_resource_groups.iter().enumerate() {
        let path = path.child("ignoredResourceGroups").index(at);
        if group.contains('/') {
            errors.push(Error::invalid(&path, group.as_str(), "resource group name can't contain '/'"));
        }
        label_name(group, &path, errors);
    }
    let Some(strategy) = &args.scoring_strategy else { return };
    let path = path.child("scoringStrategy");
    let known = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !known.contains(&strategy.kind.as_str()) {
        errors.push(Error::not_supported(&path.child("type"), strategy.kind.as_str(), &known));
    }
    weights(&strategy.resources, &path.child("resources"), errors);
    let ratio = path.child("requestedToCapacityRatio");
    match (&strategy.requested_to_capacity_ratio, strategy.kind == "RequestedToCapacityRatio") {
        (None, true) => {
            let detail = "must be specified when type is RequestedToCapacityRatio";
            errors.push(Error::required(&ratio, detail));
        }
        (Some(given), true) => shape(&given.shape, &ratio.child("shape"), errors),
        (Some(_), false) => {
            let detail = "must be nil when type is not RequestedToCapacityRatio";
            errors.push(Error::forbidden(&ratio, detail));
        }
        (None, false) => {}
    }
}

fn weights(resources: &[ResourceSpec], path: &Path, errors: &mut Errors) {
    for (at, resource) in resources.iter().enumerate().filter(|(_, r)| !(1..=100).contains(&r.weight)) {
        let detail = format!("resource weight of {} not in valid range (0, 100]", resource.name);
        errors.push(Error::invalid(&path.index(at).child("weight"), resource.weight, detail));
    }
}

fn shape(points: &[ShapePoint], path: &Path, errors: &mut Errors) {
    if points.is_empty() {
        errors.push(Error::required(path, "at least one point must be specified"));
        return;
    }
    if let Some(at) = (1..points.len()).find(|at| points[at - 1].utilization >= points[*at].utilization) {
        let path = path.index(at).child("utilization");
        let detail = "values must be sorted in increasing order";
        errors.push(Error::invalid(&path, points[at].utilization, detail));
    }
    for (at, point) in points.iter().enumerate() {
        let mut check = |name: &str, value: i32, most: i32| {
            if !(0..=most).contains(&value) {
                let detail = format!("not in valid range [0, {most}]");
                errors.push(Error::invalid(&path.index(at).child(name), value, detail));
            }
        };
        check("utilization", point.utilization, 100);
        check("score", point.score, 10);
    }
}

fn volume_binding(args: &VolumeBindingArgs, path: &Path, errors: &mut Errors) {
    let seconds = args.bind_timeout_seconds;
    if seconds < 0 {
        let detail = "invalid BindTimeoutSeconds, should not be a negative value";
        errors.push(Error::invalid(&path.child("bindTimeoutSeconds"), seconds, detail));
    }
    if args.shape.is_some() {
        let detail = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
        errors.push(Error::invalid_omitted(&path.child("shape"), detail));
    }
}
