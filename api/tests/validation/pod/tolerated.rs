//! What may not be in new pods and templates, but may stay in those that have it (upstream `api/pod`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::super::{below, changes, wholly, with};
use super::{base, changed, kind};

/// Specs that are not valid, what is wrong with them, and what still is if they were that way.
fn faults() -> Vec<(Value, &'static str, &'static str)> {
    let bad = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["-1"]}]});
    let spread = |changes: Value| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        json!({"topologySpreadConstraints": [with(&constraint, &changes)]})
    };
    let twice = json!({
        "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
    });
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let term = json!({"topologyKey": "zone", "labelSelector": bad});
    let spaced = json!({"topologyKey": "zone", "namespaceSelector": bad});
    vec![
        (
            json!({"containers": [changed("ctr", &json!({"resources": {"limits": {"cpu": "1", "hugepages-2Mi": "3Mi"}}}))]}),
            ".containers[0].resources.limits[hugepages-2Mi]: 3Mi is not positive integer multiple of hugepages-2Mi",
            "",
        ),
        (
            json!({"overhead": {"cpu": "1", "hugepages-2Mi": "3Mi"}}),
            ".overhead.limits[hugepages-2Mi]: 3Mi is not positive integer multiple of hugepages-2Mi",
            "",
        ),
        (
            json!({"initContainers": [changed("init", &json!({
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}],
            }))]}),
            ".initContainers[0].resizePolicy[0].restartPolicy: must not be set to 'RestartContainer' for non-sidecar initContainers",
            "",
        ),
        (
            json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [bad]}}}}),
            ".affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: a valid label must be",
            "",
        ),
        (
            json!({"affinity": {"podAffinity": {required: [term]}}}),
            ".affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values[0]: a valid label must be",
            "",
        ),
        (
            json!({"affinity": {"podAntiAffinity": {preferred: [{"weight": 1, "podAffinityTerm": spaced}]}}}),
            ".affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.namespaceSelector.matchExpressions[0].values[0]: a valid label must be",
            "",
        ),
        (
            spread(json!({"labelSelector": bad})),
            ".topologySpreadConstraints[0].labelSelector.matchExpressions[0].values[0]: a valid label must be",
            "",
        ),
        (
            spread(json!({"labelSelector": twice, "matchLabelKeys": ["a"]})),
            ".topologySpreadConstraints[0][0]: exists in both matchLabelKeys and labelSelector",
            "spec.topologySpreadConstraints[0].matchLabelKeys[0]: exists in both matchLabelKeys and labelSelector",
        ),
        (
            json!({
                "hostNetwork": true,
                "securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1"}]},
            }),
            ".securityContext.sysctls[0].name: may not be specified when 'hostNetwork' is true",
            "",
        ),
        (
            json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel/shmmax", "value": "1"}]}}),
            ".securityContext.sysctls[0].name: may not be specified when 'hostIPC' is true",
            "",
        ),
        (
            json!({
                "serviceAccountName": "a",
                "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "../t"}}]}}],
            }),
            ".volumes[0].projected.path: must not contain '..'",
            "",
        ),
        (
            json!({
                "hostUsers": false, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
                "containers": [changed("ctr", &json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}))],
            }),
            ".containers[0].volumeDevices: Forbidden: when `hostUsers` is false",
            "",
        ),
    ]
}

#[test]
fn pods() {
    let place = |spec: &Value| json!({"spec": spec});
    let new: Vec<(Value, &str)> = faults().into_iter().map(|(spec, wrong, _)| (spec, wrong)).collect();
    below(&kind(), &base(), "spec", place, &new);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let kept: Vec<(Value, Value, &str)> = faults()
        .into_iter()
        .map(|(spec, _, wrong)| (place(&spec), with(&place(&spec), &labels), wrong))
        .collect();
    changes(&kind(), "", &base(), &kept);
    let cost = |cost: &str| json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
    let at = "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: must be a 32bit integer";
    wholly(&kind(), &base(), &[(cost("text"), at), (cost("100"), "")]);
    let both = format!("{at} | {at}");
    changes(
        &kind(),
        "",
        &base(),
        &[(cost("text"), cost("+1"), ""), (cost("1"), cost("text"), &both), (json!({}), cost("text"), &both)],
    );
}

#[test]
fn templates() {
    let kind = GroupVersionKind::new("", "v1", "PodTemplate");
    let base = json!({"metadata": {"name": "abc", "namespace": "ns"}, "template": {"spec": base()["spec"]}});
    let place = |spec: &Value| json!({"template": {"spec": spec}});
    let new: Vec<(Value, &str)> = faults().into_iter().map(|(spec, wrong, _)| (spec, wrong)).collect();
    below(&kind, &base, "template.spec", place, &new);
    let kept: Vec<(Value, Value, String)> = faults()
        .into_iter()
        .map(|(spec, _, wrong)| {
            let wrong = if wrong.is_empty() { String::new() } else { format!("template.{wrong}") };
            (place(&spec), with(&place(&spec), &place(&json!({"nodeName": "other"}))), wrong)
        })
        .collect();
    let kept: Vec<(Value, Value, &str)> =
        kept.iter().map(|(old, new, wrong)| (old.clone(), new.clone(), wrong.as_str())).collect();
    changes(&kind, "", &base, &kept);
}

/// Workloads hand on what their templates were.
#[test]
fn templates_of_workloads() {
    let bad = json!({"template": {"spec": {"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}}}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": super::super::pod_spec("Always")});
    let selector = json!({"matchLabels": {"a": "b"}});
    let meta = json!({"name": "abc", "namespace": "ns"});
    let apps = |kind: &'static str| GroupVersionKind::new("apps", "v1", kind);
    let workloads = [
        (apps("Deployment"), json!({"selector": selector, "strategy": {"type": "Recreate"}})),
        (apps("ReplicaSet"), json!({"selector": selector})),
        (apps("DaemonSet"), json!({"selector": selector, "updateStrategy": {"type": "OnDelete"}})),
        (
            apps("StatefulSet"),
            json!({"selector": selector, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"}}),
        ),
        (
            GroupVersionKind::new("", "v1", "ReplicationController"),
            json!({"selector": {"a": "b"}, "replicas": 1}),
        ),
    ];
    let wrong =
        "spec.template.spec.securityContext.sysctls[0].name: may not be specified when 'hostIPC' is true";
    for (kind, own) in workloads {
        let base = json!({"metadata": meta, "spec": with(&own, &json!({"template": template}))});
        let bad = json!({"spec": bad});
        let more = with(&bad, &json!({"spec": {"template": {"spec": {"nodeName": "other"}}}}));
        changes(
            &kind,
            "",
            &base,
            &[(json!({}), bad.clone(), wrong), (bad.clone(), more, ""), (bad, json!({}), "")],
        );
    }
}

#[test]
fn templates_of_jobs() {
    let bad =
        json!({"hostIPC": true, "securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}});
    let spec = json!({"template": {"spec": super::super::pod_spec("Never")}});
    let base = json!({
        "metadata": {"name": "abc", "namespace": "ns"},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": "Allow", "jobTemplate": {"spec": spec}},
    });
    let place = |spec: &Value| json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}});
    let wrong = "spec.jobTemplate.spec.template.spec.securityContext.sysctls[0].name: may not be specified when 'hostIPC' is true";
    changes(
        &GroupVersionKind::new("batch", "v1", "CronJob"),
        "",
        &base,
        &[
            (json!({}), place(&bad), wrong),
            (place(&bad), with(&place(&bad), &place(&json!({"nodeName": "other"}))), ""),
        ],
    );
}

/// Selectors of kinds that may go on having values that no label has.
#[test]
fn selectors() {
    let kind = GroupVersionKind::new("apps", "v1", "DaemonSet");
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["-1"]}]});
    let base = json!({
        "metadata": {"name": "abc", "namespace": "ns"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": super::super::pod_spec("Always")},
        },
    });
    let bad = json!({"spec": {"selector": selector}});
    let at = "spec.selector.matchExpressions[0].values[0]: a valid label must be";
    wholly(&kind, &base, &[(bad.clone(), at)]);
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    changes(&kind, "", &base, &[(bad.clone(), with(&bad, &labels), "")]);
}
