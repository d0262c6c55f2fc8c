//! From a profile to its plugins.

use std::sync::Arc;

use super::{Arguments, EnabledPlugin, PluginSet, Plugins, Profile};
use crate::framework::{Framework, Plugin, Weighted};
use crate::plugins::registry::{self, Parts};

/// Which extension points a plugin has something to say at.
type Points = &'static [&'static str];

/// The default plugins in upstream's order, the weights of their scores, and their extension points.
const DEFAULTS: [(&str, i32, Points); 20] = [
    ("SchedulingGates", 0, &["preEnqueue"]),
    ("PrioritySort", 0, &["queueSort"]),
    ("NodeUnschedulable", 0, &["preFilter", "filter"]),
    ("NodeName", 0, &["preFilter", "filter"]),
    ("TaintToleration", 3, &["preFilter", "filter", "preScore", "score"]),
    ("NodeAffinity", 2, &["preFilter", "filter", "preScore", "score"]),
    ("NodePorts", 0, &["preFilter", "filter"]),
    ("NodeResourcesFit", 1, &["preFilter", "filter", "preScore", "score"]),
    ("VolumeRestrictions", 0, &["preFilter", "filter"]),
    ("NodeVolumeLimits", 0, &["preFilter", "filter"]),
    ("VolumeBinding", 0, &["preFilter", "filter", "reserve", "preBind", "preScore", "score"]),
    ("VolumeZone", 0, &["preFilter", "filter"]),
    ("PodTopologySpread", 2, &["preFilter", "filter", "preScore", "score"]),
    ("InterPodAffinity", 2, &["preFilter", "filter", "preScore", "score"]),
    (
        "DynamicResources",
        2,
        &["preEnqueue", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "preBind"],
    ),
    ("DefaultPreemption", 0, &["preEnqueue", "postFilter"]),
    ("NodeResourcesBalancedAllocation", 1, &["preScore", "score"]),
    ("ImageLocality", 1, &["score"]),
    ("DefaultBinder", 0, &["bind"]),
    ("NodeDeclaredFeatures", 0, &["preFilter", "filter"]),
];

impl Plugins {
    /// The extension points but `multiPoint`, by name.
    pub(super) fn points(&self) -> [(&'static str, &PluginSet); 12] {
        [
            ("preEnqueue", &self.pre_enqueue),
            ("queueSort", &self.queue_sort),
            ("preFilter", &self.pre_filter),
            ("filter", &self.filter),
            ("postFilter", &self.post_filter),
            ("preScore", &self.pre_score),
            ("score", &self.score),
            ("reserve", &self.reserve),
            ("permit", &self.permit),
            ("preBind", &self.pre_bind),
            ("bind", &self.bind),
            ("postBind", &self.post_bind),
        ]
    }
}

fn default_points(plugin: &str) -> Option<Points> {
    DEFAULTS.iter().find(|(name, ..)| *name == plugin).map(|(.., points)| *points)
}

/// The plugins enabled at all their points: the defaults with the profile's changes. Those that replace a default
/// one stand in its place, the others come after (upstream `mergePluginSet`).
fn multi_point(custom: &PluginSet) -> Vec<EnabledPlugin> {
    let is_off = |name: &str| custom.disabled.iter().any(|p| p.name == name);
    let mut replaced = Vec::new();
    let mut enabled = Vec::new();
    for (name, weight, _) in DEFAULTS.iter().filter(|(name, ..)| !is_off("*") && !is_off(name)) {
        let at = custom.enabled.iter().position(|p| p.name == *name);
        replaced.extend(at);
        let default =
            || EnabledPlugin { name: (*name).to_owned(), weight: Some(*weight).filter(|w| *w != 0) };
        enabled.push(at.map_or_else(default, |at| custom.enabled[at].clone()));
    }
    let others = custom.enabled.iter().enumerate().filter(|(at, _)| !replaced.contains(at));
    enabled.extend(others.map(|(_, plugin)| plugin.clone()));
    enabled
}

/// The plugins at one extension point (upstream `expandMultiPointPlugins`).
fn at_point(point: &str, set: &PluginSet, multi: &[EnabledPlugin]) -> Result<Vec<EnabledPlugin>, String> {
    let is_off = |name: &str| set.disabled.iter().any(|p| p.name == name);
    let own = |name: &str| set.enabled.iter().find(|p| p.name == name);
    for (at, plugin) in set.enabled.iter().enumerate() {
        let Some(points) = default_points(&plugin.name) else {
            return Err(format!("{} {:?} does not exist", interface(point), plugin.name));
        };
        if !points.contains(&point) {
            return Err(format!("plugin {:?} does not extend {} plugin", plugin.name, interface(point)));
        }
        if set.enabled[..at].iter().any(|other| other.name == plugin.name) {
            return Err(format!("plugin {:?} already registered as {:?}", plugin.name, interface(point)));
        }
    }
    if is_off("*") {
        return Ok(set.enabled.clone());
    }
    let mut from_multi = Vec::new();
    let mut overriding = Vec::new();
    for plugin in multi {
        let Some(points) = default_points(&plugin.name) else {
            return Err(format!("{} {:?} does not exist", interface(point), plugin.name));
        };
        if !points.contains(&point) || is_off(&plugin.name) {
            continue;
        }
        match own(&plugin.name) {
            Some(own) => overriding.push(own.name.clone()),
            None if from_multi.iter().any(|p: &EnabledPlugin| p.name == plugin.name) => {
                return Err(format!("plugin {:?} already registered as {:?}", plugin.name, interface(point)));
            }
            None => from_multi.push(plugin.clone()),
        }
    }
    let (first, last): (Vec<_>, Vec<_>) =
        set.enabled.iter().cloned().partition(|plugin| overriding.contains(&plugin.name));
    Ok(first.into_iter().chain(from_multi).chain(last).collect())
}

/// Upstream's name of the interface for a point.
fn interface(point: &str) -> String {
    let mut letters = point.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase()).unwrap_or_default();
    format!("{first}{}Plugin", letters.as_str())
}

/// Makes the plugins of a profile.
///
/// # Errors
/// The profile names plugins that there are not, or lacks one that is needed.
pub fn build(profile: &Profile, parts: &Parts) -> Result<Framework, String> {
    let name = profile.scheduler_name.clone().unwrap_or_default();
    let mut arguments = profile.arguments().map_err(|(_, error)| error)?;
    arguments.fit.ignored_resources.extend(parts.ignored_resources.iter().cloned());
    let multi = multi_point(&profile.plugins.multi_point);
    let mut builder = Builder { arguments: &arguments, parts, made: Vec::new() };
    let mut framework = Framework {
        scheduler_name: name.clone(),
        percentage_of_nodes_to_score: profile.percentage_of_nodes_to_score,
        ..Framework::default()
    };
    for (point, set) in profile.plugins.points() {
        let enabled = at_point(point, set, &multi)?;
        if point == "queueSort" {
            if enabled.len() != 1 {
                return Err(format!(
                    "only one queue sort plugin required for profile with scheduler name {name:?}, but got {}",
                    enabled.len()
                ));
            }
            continue;
        }
        let plugins: Vec<_> = enabled.iter().filter_map(|plugin| builder.plugin(&plugin.name)).collect();
        match point {
            "preEnqueue" => framework.pre_enqueue = plugins,
            "preFilter" => framework.pre_filter = plugins,
            "filter" => framework.filter = plugins,
            "postFilter" => framework.post_filter = plugins,
            "score" => framework.score = weigh(&enabled, &plugins, &multi),
            "reserve" => framework.reserve = plugins,
            "permit" => framework.permit = plugins,
            "preBind" => framework.pre_bind = plugins,
            "bind" if plugins.is_empty() => {
                return Err(format!(
                    "at least one bind plugin is needed for profile with scheduler name {name:?}"
                ));
            }
            "bind" => framework.bind = plugins,
            "postBind" => framework.post_bind = plugins,
            // What is prepared for scores is prepared where the scores are.
            _ => {}
        }
    }
    let is_prepared =
        |filter: &Arc<dyn Plugin>| framework.pre_filter.iter().any(|p| p.name() == filter.name());
    let unprepared: Vec<_> = framework.filter.iter().filter(|p| !is_prepared(p)).cloned().collect();
    // A filter is made by what comes before it, and what was reserved is let go of after.
    framework.pre_filter.extend(unprepared);
    framework.post_bind.extend(framework.reserve.iter().cloned());
    framework.plugins = builder.made;
    Ok(framework)
}

/// A weight of 0 is no weight: then that of `multiPoint` holds, or 1.
fn weigh(enabled: &[EnabledPlugin], plugins: &[Arc<dyn Plugin>], multi: &[EnabledPlugin]) -> Vec<Weighted> {
    let weight_in = |set: &[EnabledPlugin], name: &str| {
        set.iter().find(|p| p.name == name).and_then(|p| p.weight).filter(|weight| *weight != 0)
    };
    let weigh = |plugin: &Arc<dyn Plugin>| {
        let own = weight_in(enabled, plugin.name()).or_else(|| weight_in(multi, plugin.name()));
        Weighted { plugin: plugin.clone(), weight: own.unwrap_or(1).into() }
    };
    plugins.iter().map(weigh).collect()
}

/// Makes each plugin once.
struct Builder<'a> {
    arguments: &'a Arguments,
    parts: &'a Parts,
    made: Vec<Arc<dyn Plugin>>,
}

impl Builder<'_> {
    fn plugin(&mut self, name: &str) -> Option<Arc<dyn Plugin>> {
        if let Some(plugin) = self.made.iter().find(|plugin| plugin.name() == name) {
            return Some(plugin.clone());
        }
        let plugin = registry::plugin(name, self.arguments, self.parts)?;
        self.made.push(plugin.clone());
        Some(plugin)
    }
}
