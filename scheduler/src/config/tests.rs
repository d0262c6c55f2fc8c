//! Files, and the plugins they stand for.

use super::profile::build;
use super::*;
use crate::framework::Framework;
use crate::plugins::registry::Parts;

const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

fn framework(profile: &str) -> Result<Framework, String> {
    let text = format!("{HEAD}profiles:\n- {}", profile.replace('\n', "\n  "));
    let config = KubeSchedulerConfiguration::parse(&text).map_err(|error| error.to_string())?;
    build(&config.profiles[0], &Parts::default())
}

fn scores(framework: &Framework) -> String {
    let all = framework.score.iter().map(|w| format!("{}={}", w.plugin.name(), w.weight));
    all.collect::<Vec<_>>().join(" ")
}

fn filters(framework: &Framework) -> Vec<&'static str> {
    framework.filter.iter().map(|plugin| plugin.name()).collect()
}

#[test]
fn without_changes_the_plugins_are_upstreams() {
    let framework = framework("schedulerName: s").expect("a profile");
    assert_eq!(
        scores(&framework),
        "TaintToleration=3 NodeAffinity=2 NodeResourcesFit=1 VolumeBinding=1 PodTopologySpread=2 \
         InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1 ImageLocality=1"
    );
    assert_eq!(filters(&framework).len(), 14);
    assert_eq!(framework.bind.len(), 1);
}

#[test]
fn profiles_change_what_is_called_where() {
    for (profile, expected) in [
        (
            "plugins: {score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 5}]}}",
            "ImageLocality=5",
        ),
        (
            "plugins: {score: {disabled: [{name: NodeResourcesFit}, {name: VolumeBinding}, {name: ImageLocality}]}}",
            "TaintToleration=3 NodeAffinity=2 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1",
        ),
        (
            "plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeAffinity, weight: 7}]}}",
            "NodeAffinity=7",
        ),
        (
            "plugins: {score: {enabled: [{name: ImageLocality, weight: 9}], disabled: [{name: TaintToleration}, {name: VolumeBinding}]}}",
            "ImageLocality=9 NodeAffinity=2 NodeResourcesFit=1 PodTopologySpread=2 InterPodAffinity=2 DynamicResources=2 NodeResourcesBalancedAllocation=1",
        ),
    ] {
        assert_eq!(scores(&framework(profile).expect("a profile")), expected, "{profile}");
    }
    let bare = framework(
        "plugins: {filter: {disabled: [{name: '*'}]}, postFilter: {disabled: [{name: DynamicResources}, {name: DefaultPreemption}]}}",
    );
    let bare = bare.expect("a profile");
    assert!(filters(&bare).is_empty());
    assert!(bare.post_filter.is_empty());
}

#[test]
fn profiles_that_cannot_work_are_refused() {
    for (profile, expected) in [
        ("plugins: {filter: {enabled: [{name: Foo}]}}", "FilterPlugin \"Foo\" does not exist"),
        (
            "plugins: {filter: {enabled: [{name: ImageLocality}]}}",
            "plugin \"ImageLocality\" does not extend FilterPlugin plugin",
        ),
        (
            "plugins: {bind: {disabled: [{name: DefaultBinder}]}}",
            "at least one bind plugin is needed for profile with scheduler name \"default-scheduler\"",
        ),
        (
            "plugins: {queueSort: {disabled: [{name: PrioritySort}]}}",
            "only one queue sort plugin required for profile with scheduler name \"default-scheduler\", but got 0",
        ),
    ] {
        let error = framework(profile).err().unwrap_or_default();
        assert_eq!(error, expected, "{profile}");
    }
}

#[test]
fn mistakes_are_named_as_upstream_names_them() {
    for (text, expected) in [
        ("parallelism: 0", "parallelism: Invalid value: 0: should be an integer value greater than zero"),
        (
            "percentageOfNodesToScore: 101",
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
        ),
        ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"),
        (
            "podInitialBackoffSeconds: 20",
            "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds",
        ),
        ("profiles: [{schedulerName: a}, {}]", "profiles[1].schedulerName: Required value"),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
        ),
        (
            "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
            "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}}]}]",
            "profiles[0].pluginConfig[0].args.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]",
            "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio",
        ),
        (
            "extenders: [{urlPrefix: u, prioritizeVerb: p}]",
            "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
        ),
        (
            "extenders: [{bindVerb: b}, {bindVerb: b}]",
            "extenders: Invalid value: \"found 2 extenders implementing bind\": only one extender can implement bind",
        ),
        (
            "leaderElection: {resourceLock: endpoints}",
            "leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \"leases\"",
        ),
    ] {
        let error = KubeSchedulerConfiguration::parse(&format!("{HEAD}{text}")).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn files_are_read_strictly() {
    let error =
        KubeSchedulerConfiguration::parse(&format!("{HEAD}nonsense: 1")).expect_err("an unknown field");
    assert!(error.to_string().starts_with("strict decoding error: "), "{error}");
    let other = HEAD.replace("/v1", "/v1beta3");
    assert!(KubeSchedulerConfiguration::parse(&other).is_err());
    let config =
        KubeSchedulerConfiguration::parse(&format!("{HEAD}podMaxBackoffSeconds: 30")).expect("a file");
    assert_eq!(config.waits().max_backoff, Duration::from_secs(30));
    assert_eq!(config.profiles[0].scheduler_name.as_deref(), Some("default-scheduler"));
}

#[test]
fn resources_that_extenders_see_to_are_nobody_elses() {
    let text = "extenders: [{managedResources: [{name: a.b/c, ignoredByScheduler: true}, {name: a.b/d}]}]";
    let config = KubeSchedulerConfiguration::parse(&format!("{HEAD}{text}")).expect("a file");
    assert_eq!(config.ignored_resources(), ["a.b/c"]);
    let parts = Parts { ignored_resources: config.ignored_resources(), ..Parts::default() };
    let framework = build(&config.profiles[0], &parts).expect("a profile");
    let requests = serde_json::json!({"requests": {"a.b/c": "1"}});
    let spec = serde_json::json!({"containers": [{"name": "c", "resources": requests}]});
    let nodes = crate::testing::cluster(vec![crate::testing::node("n", "z", serde_json::json!({}))]);
    let decision = crate::testing::decide(&framework, &crate::testing::pod("p", "a", spec), &nodes);
    assert!(matches!(decision, crate::cycle::Decision::Place { .. }), "no node has it, and none needs to");
}
