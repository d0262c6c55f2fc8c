//! Arithmetic on Deployments and their ReplicaSets.

use super::TEMPLATE_HASH;
use crate::common::{hash, meta};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// How many pods the Deployment wants.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods the ReplicaSet wants.
pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many pods the ReplicaSet has.
pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// How many of its pods are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Sums a number over ReplicaSets.
pub fn sum<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>, number: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(number).sum()
}

/// Whether all old pods go before the first new one comes.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// Whether the two have the same pod template, the hash label aside.
pub fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let empty = PodTemplateSpec::default();
    let ours = deployment.spec.as_ref().map_or(&empty, |spec| &spec.template);
    let theirs = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).unwrap_or(&empty);
    let (ours, theirs) = (without_hash(ours), without_hash(theirs));
    ours == theirs || canonical(&ours) == canonical(&theirs)
}

/// The template without the hash label.
pub fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

/// The value without empty parts, which mean the same as absent ones.
fn canonical(template: &PodTemplateSpec) -> Value {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.values_mut().for_each(prune);
                map.retain(|_, value| !is_empty(value));
            }
            Value::Array(items) => items.iter_mut().for_each(prune),
            _ => {}
        }
    }
    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            // An empty object may be a choice (`emptyDir: {}`), an empty list never is.
            Value::Array(items) => items.is_empty(),
            _ => false,
        }
    }
    let mut value = serde_json::to_value(template).unwrap_or_default();
    prune(&mut value);
    value
}

/// The ReplicaSet with the Deployment's template; the oldest if there are several.
pub fn find_new<'a>(
    deployment: &Deployment,
    sets: impl IntoIterator<Item = &'a ReplicaSet>,
) -> Option<&'a ReplicaSet> {
    sets.into_iter().filter(|set| same_template(deployment, set)).min_by_key(|set| by_age(set))
}

/// Orders by creation, then name: oldest first.
pub fn by_age(set: &ReplicaSet) -> (i64, String) {
    (meta::created_at(&set.metadata), meta::name(&set.metadata).to_owned())
}

/// Resolves a number or a percentage of `total`.
pub fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
            let hundredths = percent * i64::from(total);
            let resolved =
                if round_up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(resolved).unwrap_or(i32::MAX)
        }
    }
}

fn rolling(deployment: &Deployment) -> Option<&RollingUpdateDeployment> {
    if is_recreate(deployment) {
        return None;
    }
    deployment.spec.as_ref()?.strategy.as_ref()?.rolling_update.as_ref()
}

/// `maxSurge` and `maxUnavailable` in pods. Not both are 0, or nothing could ever move.
fn fenceposts(rolling: &RollingUpdateDeployment, replicas: i32) -> (i32, i32) {
    let surge = resolve(rolling.max_surge.as_ref(), replicas, true);
    let unavailable = resolve(rolling.max_unavailable.as_ref(), replicas, false);
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

/// How many pods there may be beyond those wanted.
pub fn max_surge(deployment: &Deployment) -> i32 {
    rolling(deployment).map_or(0, |rolling| fenceposts(rolling, replicas(deployment)).0)
}

/// How many pods may be missing during a rollout.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    match rolling(deployment) {
        Some(rolling) if replicas > 0 => fenceposts(rolling, replicas).1.min(replicas),
        _ => 0,
    }
}

/// How many pods the new ReplicaSet may have now. `all` includes the new one.
pub fn new_replicas<'a>(
    deployment: &Deployment,
    all: impl IntoIterator<Item = &'a ReplicaSet>,
    new: &ReplicaSet,
) -> i32 {
    let replicas = replicas(deployment);
    if is_recreate(deployment) {
        return replicas;
    }
    let room = replicas + max_surge(deployment) - sum(all, wanted);
    if room <= 0 { wanted(new) } else { wanted(new) + room.min(replicas - wanted(new)) }
}

/// The ReplicaSet for the Deployment's template, without replicas.
pub fn build_new(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::template_hash(&spec.template, collisions);
    let mut template = spec.template;
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(TEMPLATE_HASH.into(), hash.clone());
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.clone());
    ReplicaSet {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(set_name(meta::name(&deployment.metadata), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            owner_references: Some(vec![meta::controller_reference(deployment)]),
            ..Default::default()
        },
        spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// `deployment-hash`, with the Deployment's name cut where that would be too long.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253 - 1 - hash.len();
    format!("{}-{hash}", &deployment[..deployment.len().min(room)])
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStrategy, ReplicaSetStatus};
    use k8s_openapi::api::core::v1::{Container, PodSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    /// A template that differs by its image.
    pub fn template(image: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some([("app".to_owned(), "web".to_owned())].into()),
                ..Default::default()
            }),
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "c".into(),
                    image: Some(image.into()),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        }
    }

    fn int_or_percent(text: &str) -> IntOrString {
        text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int)
    }

    /// A Deployment named `web` of image `new` that rolls with these bounds.
    pub fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        Deployment {
            metadata: ObjectMeta {
                name: Some("web".into()),
                namespace: Some("default".into()),
                uid: Some("uid-web".into()),
                ..Default::default()
            },
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                template: template("new"),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(int_or_percent(surge)),
                        max_unavailable: Some(int_or_percent(unavailable)),
                    }),
                }),
                ..Default::default()
            }),
            status: None,
        }
    }

    /// A ReplicaSet with an age (smaller is older), the wanted and the available number of pods.
    pub fn set(name: &str, image: &str, age: i64, wanted: i32, available: i32) -> ReplicaSet {
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("default".into()),
                uid: Some(format!("uid-{name}")),
                creation_timestamp: Some(Time(crate::common::pods::tests::at(age))),
                ..Default::default()
            },
            spec: Some(k8s_openapi::api::apps::v1::ReplicaSetSpec {
                replicas: Some(wanted),
                template: Some(template(image)),
                ..Default::default()
            }),
            status: Some(ReplicaSetStatus {
                replicas: wanted,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: Some(1),
                terminating_replicas: Some(0),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn fenceposts_round_surge_up_and_unavailable_down() {
        for (replicas, surge, unavailable, expected) in [
            (2, "0%", "1%", (0, 1)),
            (1, "0%", "1%", (0, 1)),
            (2, "1%", "25%", (1, 0)),
            (1, "1%", "0%", (1, 0)),
            (10, "25%", "25%", (3, 2)),
            (10, "3", "2", (3, 2)),
            (3, "0", "5", (0, 3)),
            (0, "50%", "50%", (0, 0)),
        ] {
            let deployment = deployment(replicas, surge, unavailable);
            let got = (max_surge(&deployment), max_unavailable(&deployment));
            assert_eq!(got, expected, "{replicas} replicas, {surge}, {unavailable}");
        }
    }

    #[test]
    fn new_set_fills_the_room_there_is() {
        // As upstream's TestNewRSNewReplicas: replicas, surge, size of the new set, expected.
        for (replicas, surge, size, expected) in
            [(1, "1", 0, 1), (1, "0", 0, 1), (5, "2", 5, 5), (5, "2", 1, 5)]
        {
            let deployment = deployment(replicas, surge, "1");
            let new = set("new", "new", 1, size, 0);
            assert_eq!(new_replicas(&deployment, [&new], &new), expected);
        }
        let (old, new) = (set("old", "old", 1, 10, 10), set("new", "new", 2, 0, 0));
        assert_eq!(new_replicas(&deployment(10, "3", "2"), [&old, &new], &new), 3);
        assert_eq!(new_replicas(&deployment(10, "0", "2"), [&old, &new], &new), 0);
    }

    #[test]
    fn sets_are_named_as_upstream_names_them() {
        let mut deployment = deployment(1, "1", "0");
        let name = |deployment: &Deployment| build_new(deployment).metadata.name.unwrap_or_default();
        assert_eq!(name(&deployment), "web-768768d587");
        deployment.status.get_or_insert_default().collision_count = Some(3);
        assert_eq!(name(&deployment), "web-77d65b97dd");
    }

    #[test]
    fn hash_label_does_not_make_a_template_another() {
        let deployment = deployment(1, "1", "0");
        let built = build_new(&deployment);
        assert!(same_template(&deployment, &built));
        assert!(!same_template(&deployment, &set("old", "old", 1, 1, 1)));
        let name = meta::name(&built.metadata).to_owned();
        assert_eq!(name, format!("web-{}", meta::label(&built.metadata, TEMPLATE_HASH).unwrap_or_default()));
        assert_eq!(set_name(&"x".repeat(300), "abc").len(), 253);
    }
}
