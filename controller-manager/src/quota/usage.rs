//! What objects use of a quota.

use crate::common::meta;
use api::pod::Resources;
use api::quantity::{Format, Quantity};
use api::quota::{Counted, alias, attributes_classes, has_ended, is_terminating};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

type Used = BTreeMap<String, Quantity>;

fn add(used: &mut Used, name: impl Into<String>, amount: &Quantity) {
    used.entry(name.into()).or_insert_with(|| Quantity::new(0, amount.format())).add(amount);
}

fn number(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// The resource that a limit only counts, as `resource.group`; `None` when it is not such a limit, or when the
/// objects are known more closely.
pub fn counted_resource(limit: &str) -> Option<String> {
    if alias("", limit).is_some() {
        return Some(limit.to_owned());
    }
    let name = limit.strip_prefix("count/")?;
    (!["pods", "services", "persistentvolumeclaims", "resourceclaims.resource.k8s.io"].contains(&name))
        .then(|| name.to_owned())
}

/// So many objects of `resource.group`.
pub fn count(resource: &str, count: usize, used: &mut Used) {
    add(used, format!("count/{resource}"), &number(count));
    if !resource.contains('.') {
        add(used, resource, &number(count));
    }
}

/// Whether the quota is about all objects.
pub fn has_no_scopes(quota: &ResourceQuota) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let selected = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    spec.scopes.as_ref().is_none_or(Vec::is_empty) && selected.is_none_or(Vec::is_empty)
}

/// Adds up objects, as far as the quota limits what they use.
pub fn sum<'a>(
    quota: &ResourceQuota,
    hard: &Resources,
    objects: impl Iterator<Item = Counted<'a>>,
    now: Timestamp,
    used: &mut Used,
) {
    for object in objects {
        let concerned: Vec<_> = hard.keys().filter(|name| object.concerns(name)).collect();
        if concerned.is_empty() || !object.in_scopes(quota) {
            continue;
        }
        let usage = object.usage(now);
        for name in concerned {
            if let Some(amount) = usage.get(name) {
                add(used, name.as_str(), amount);
            }
        }
    }
}

/// The extended resources that classes of devices go by.
pub fn extended_names(classes: &[Arc<DeviceClass>]) -> BTreeMap<String, String> {
    let named = |class: &Arc<DeviceClass>| {
        Some((class.metadata.name.clone()?, class.spec.extended_resource_name.clone()?))
    };
    classes.iter().filter_map(named).collect()
}

/// What the pod that a claim was made for, instead of extended resources, is charged for them already (upstream
/// `getVerifiedPodUsage`). `claims` are all of the namespace.
pub fn charged_to_pod(
    claim: &ResourceClaim,
    claims: &[Arc<ResourceClaim>],
    pod: impl Fn(&str) -> Option<Arc<Pod>>,
    now: Timestamp,
) -> Resources {
    let mark = meta::annotation(&claim.metadata, "resource.kubernetes.io/extended-resource-claim");
    let owner =
        meta::controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod" && owner.api_version == "v1");
    let (Some("true"), Some(owner)) = (mark, owner) else { return Resources::new() };
    let Some(pod) = pod(&owner.name).filter(|pod| meta::uid(&pod.metadata) == owner.uid) else {
        return Resources::new();
    };
    let told = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let is_its = match told {
        Some(told) => Some(&told.resource_claim_name) == claim.metadata.name.as_ref(),
        // The pod does not say which claim is its own: the first is.
        None => !claims.iter().any(|other| {
            let age = |claim: &ResourceClaim| {
                (claim.metadata.creation_timestamp.as_ref().map(|time| time.0), claim.metadata.name.clone())
            };
            let owned = meta::controller_of(&other.metadata).is_some_and(|of| of.uid == owner.uid);
            owned && age(other) < age(claim)
        }),
    };
    if is_its { Counted::Pod(Cow::Borrowed(&*pod)).usage(now) } else { Resources::new() }
}

/// Whether a changed pod uses less, or counts for other quotas.
pub fn frees_pod(old: &Pod, new: &Pod, now: Timestamp) -> bool {
    let resources = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let all = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
        all.map(|container| (container.name, container.resources)).collect::<Vec<_>>()
    };
    let (before, after) = (resources(old), resources(new));
    let resized = |(name, old): &(String, _)| after.iter().any(|(other, new)| other == name && new != old);
    before.iter().any(resized)
        || is_terminating(old) != is_terminating(new)
        || (!has_ended(old, now) && has_ended(new, now))
}

/// Whether a changed Service is of another kind for quotas.
pub fn frees_service(old: &Service, new: &Service) -> bool {
    let kind = |service: &Service| {
        let kind = service.spec.as_ref().and_then(|spec| spec.type_.clone());
        kind.filter(|kind| kind == "NodePort" || kind == "LoadBalancer")
    };
    kind(old) != kind(new)
}

/// Whether a changed claim uses another amount.
pub fn frees_claim(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let allocated = |claim: &PersistentVolumeClaim| {
        let status = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
        status.and_then(|resources| resources.get("storage").cloned())
    };
    allocated(old) != allocated(new) || attributes_classes(old) != attributes_classes(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods as pod;
    use k8s_openapi::api::core::v1::{
        Container, PersistentVolumeClaimSpec, ResourceQuotaSpec, ResourceRequirements, ServicePort,
        ServiceSpec, VolumeResourceRequirements,
    };
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
    use serde_json::json;

    fn list(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, Text>> {
        Some(pairs.iter().map(|(name, amount)| ((*name).to_owned(), Text((*amount).to_owned()))).collect())
    }

    fn made(phase: &str, cpu: Option<&str>) -> Arc<Pod> {
        let mut held = pod::tests::pod("p", "n", phase, None);
        if let Some(spec) = &mut held.spec {
            let resources =
                cpu.map(|cpu| ResourceRequirements { requests: list(&[("cpu", cpu)]), ..Default::default() });
            spec.containers = vec![Container { resources, ..Default::default() }];
        }
        Arc::new(held)
    }

    fn summed<'a>(
        quota: &ResourceQuota,
        objects: impl Iterator<Item = Counted<'a>>,
        names: &[&str],
    ) -> Vec<String> {
        let hard = names.iter().map(|name| ((*name).to_owned(), Quantity::default())).collect();
        let mut used = Used::new();
        sum(quota, &hard, objects, pod::tests::at(1), &mut used);
        names.iter().map(|name| used.get(*name).map_or("-".to_owned(), ToString::to_string)).collect()
    }

    #[test]
    fn what_frees_wakes_and_what_uses_does_not() {
        let pod = |value: serde_json::Value| serde_json::from_value::<Pod>(value).unwrap();
        let running = pod(json!({"metadata": {}, "status": {"phase": "Running"}}));
        let ready = pod(
            json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running", "podIP": "1.2.3.4"}}),
        );
        let ended = pod(json!({"metadata": {}, "status": {"phase": "Succeeded"}}));
        let bounded = pod(json!({"metadata": {}, "spec": {"containers": [], "activeDeadlineSeconds": 5}}));
        for (old, new, expected) in [
            (&running, &ready, false),
            (&running, &ended, true),
            (&ended, &running, false),
            (&running, &bounded, true),
        ] {
            assert_eq!(frees_pod(old, new, Timestamp::UNIX_EPOCH), expected, "{old:?} -> {new:?}");
        }
        let service = |kind: &str| {
            serde_json::from_value::<Service>(json!({"metadata": {}, "spec": {"type": kind}})).unwrap()
        };
        assert!(frees_service(&service("NodePort"), &service("ClusterIP")));
        assert!(!frees_service(&service("ExternalName"), &service("ClusterIP")));
    }

    #[test]
    fn pods_are_added_up_by_scope() {
        let all = [
            made("Running", Some("500m")),
            made("Running", Some("1")),
            made("Running", None),
            made("Failed", Some("1")),
        ];
        for (scope, expected) in [
            (None, ["3", "4", "1500m", "1500m"]),
            (Some("BestEffort"), ["1", "1", "-", "-"]),
            (Some("NotBestEffort"), ["2", "3", "1500m", "1500m"]),
            (Some("Terminating"), ["-", "-", "-", "-"]),
        ] {
            let spec =
                ResourceQuotaSpec { scopes: scope.map(|scope| vec![scope.to_owned()]), ..Default::default() };
            let quota = ResourceQuota { spec: Some(spec), ..Default::default() };
            let names = ["pods", "count/pods", "cpu", "requests.cpu"];
            let all = all.iter().map(|pod| Counted::Pod(Cow::Borrowed(&**pod)));
            assert_eq!(summed(&quota, all, &names), expected, "{scope:?}");
        }
    }

    #[test]
    fn services_use_ports() {
        let made = |kind: &str, ports: usize| {
            let ports = vec![ServicePort::default(); ports];
            let spec = ServiceSpec { type_: Some(kind.into()), ports: Some(ports), ..Default::default() };
            Arc::new(Service { spec: Some(spec), ..Default::default() })
        };
        let names = ["services", "services.nodeports", "services.loadbalancers"];
        let all = [made("ClusterIP", 1), made("NodePort", 2), made("LoadBalancer", 1)];
        let all = all.iter().map(|service| Counted::Service(Cow::Borrowed(&**service)));
        assert_eq!(summed(&ResourceQuota::default(), all, &names), ["3", "3", "1"]);
    }

    #[test]
    fn claims_are_added_up_by_class() {
        let made = |class: &str, storage: &str| {
            let resources =
                VolumeResourceRequirements { requests: list(&[("storage", storage)]), ..Default::default() };
            let spec = PersistentVolumeClaimSpec {
                storage_class_name: Some(class.into()),
                resources: Some(resources),
                ..Default::default()
            };
            Arc::new(PersistentVolumeClaim { spec: Some(spec), ..Default::default() })
        };
        let names = [
            "persistentvolumeclaims",
            "requests.storage",
            "fast.storageclass.storage.k8s.io/requests.storage",
        ];
        let mut grown = made("", "1Gi");
        Arc::make_mut(&mut grown).status =
            serde_json::from_value(json!({"allocatedResources": {"storage": "2Gi"}})).ok();
        let all = [made("fast", "1Gi"), made("fast", "2Gi"), made("", "1500m"), grown];
        let all = || all.iter().map(|claim| Counted::Claim(Cow::Borrowed(&**claim)));
        assert_eq!(summed(&ResourceQuota::default(), all(), &names), ["4", "5368709122", "3Gi"]);
        let quota = |scope: &str, values: serde_json::Value| -> ResourceQuota {
            let term = json!({"scopeName": scope, "operator": "In", "values": values});
            serde_json::from_value(
                json!({"metadata": {}, "spec": {"scopeSelector": {"matchExpressions": [term]}}}),
            )
            .unwrap()
        };
        assert_eq!(summed(&quota("PriorityClass", json!(["gold"])), all(), &names), ["-", "-", "-"]);
        let mut gold = made("fast", "1Gi");
        Arc::make_mut(&mut gold).status =
            serde_json::from_value(json!({"currentVolumeAttributesClassName": "gold"})).ok();
        let gold = || std::iter::once(Counted::Claim(Cow::Borrowed(&*gold)));
        assert_eq!(
            summed(&quota("VolumeAttributesClass", json!(["gold"])), gold(), &names),
            ["1", "1Gi", "1Gi"]
        );
        assert_eq!(summed(&quota("VolumeAttributesClass", json!(["tin"])), gold(), &names), ["-", "-", "-"]);
    }

    #[test]
    fn claims_for_extended_resources_are_charged_to_their_pod() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "1"}, "spec": {"containers":
            [{"name": "c", "resources": {"requests": {"example.com/gpu": "2"}}}]}}))
            .unwrap();
        let pod = Arc::new(pod);
        let claim = |name: &str, uid: &str, mark: &str| -> Arc<ResourceClaim> {
            let owner =
                json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true});
            serde_json::from_value(
                json!({"metadata": {"name": name, "ownerReferences": [owner], "annotations":
                {"resource.kubernetes.io/extended-resource-claim": mark}}, "spec": {}}),
            )
            .map(Arc::new)
            .unwrap()
        };
        let all = [claim("a", "1", "true"), claim("b", "1", "true")];
        let charged = |claim: &ResourceClaim, pod: &Arc<Pod>| {
            let usage = charged_to_pod(claim, &all, |_| Some(pod.clone()), Timestamp::UNIX_EPOCH);
            usage.get("requests.example.com/gpu").map(ToString::to_string)
        };
        assert_eq!(charged(&all[0], &pod).as_deref(), Some("2"));
        assert_eq!(charged(&all[1], &pod), None, "only the first is the pod's");
        assert_eq!(charged(&claim("a", "2", "true"), &pod), None, "of an earlier pod");
        assert_eq!(charged(&claim("a", "1", ""), &pod), None, "of a user");
        let mut told = pod.clone();
        Arc::make_mut(&mut told).status = serde_json::from_value(
            json!({"extendedResourceClaimStatus": {"resourceClaimName": "b", "requestMappings": []}}),
        )
        .ok();
        assert_eq!(charged(&all[0], &told), None);
        assert_eq!(charged(&all[1], &told).as_deref(), Some("2"));
    }

    #[test]
    fn limits_that_only_count() {
        for (limit, expected) in [
            ("configmaps", Some("configmaps")),
            ("count/deployments.apps", Some("deployments.apps")),
            ("count/pods", None),
            ("cpu", None),
        ] {
            assert_eq!(counted_resource(limit).as_deref(), expected, "{limit}");
        }
    }
}
