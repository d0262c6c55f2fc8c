//! Which pods the levels of pod security refuse, and in which words.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::json;

use super::policy::Version;
use super::*;

fn violations(level: Level, version: u32, spec: Value) -> String {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let spec: PodSpec = serde_json::from_value(spec).expect("spec");
    let demand = LevelVersion { level, version: Version(version) };
    checks::details(&checks::evaluate(demand, &checks::Pod::new(None, &spec)))
}

/// A container with this security context.
fn container(security: Value) -> Value {
    json!({"containers": [{"name": "c", "securityContext": security}]})
}

#[test]
fn the_baseline_forbids_known_escalations() {
    for (spec, expected) in [
        (json!({}), ""),
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            container(json!({"privileged": true})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volumes \"v\", \"w\")",
        ),
        (
            json!({"containers": [{"name": "c", "ports": [
                {"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 81}]}]}),
            "hostPort (container \"c\" uses hostPorts 80, 81)",
        ),
        (
            container(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            container(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "evil_t", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"evil_t\"; user may not be set)",
        ),
        (
            json!({"securityContext": {"sysctls": [
                {"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}),
            "",
        ),
        (
            json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 1, "host": "h"}}}]}),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")",
        ),
    ] {
        assert_eq!(violations(Level::Baseline, u32::MAX, spec.clone()), expected, "{spec}");
    }
}

const PLAIN: &str = "allowPrivilegeEscalation != false (container \"c\" must set \
                     securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
                     securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
                     securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
                     securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

/// A hardened container, with changes.
fn hardened(changes: Value) -> Value {
    let mut security = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}});
    for (key, value) in changes.as_object().expect("changes") {
        security[key] = value.clone();
    }
    container(security)
}

#[test]
fn restricted_wants_hardened_pods() {
    for (spec, expected) in [
        (json!({}), PLAIN),
        (hardened(json!({})), ""),
        (hardened(json!({"runAsUser": 0})), "runAsUser=0 (container \"c\" must not set runAsUser=0)"),
        (
            hardened(json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            hardened(json!({"capabilities": {"add": ["CHOWN"]}})),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; container \
             \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
    ] {
        assert_eq!(violations(Level::Restricted, u32::MAX, spec.clone()), expected, "{spec}");
    }
    let mut nfs = hardened(json!({}));
    nfs["volumes"] =
        json!([{"name": "n", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}]);
    assert_eq!(
        violations(Level::Restricted, u32::MAX, nfs),
        "restricted volume types (volume \"n\" uses restricted volume type \"nfs\")"
    );
}

#[test]
fn older_versions_ask_for_less() {
    let expected = "allowPrivilegeEscalation != false (container \"c\" must set \
                    securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or container \"c\" must set \
                    securityContext.runAsNonRoot=true)";
    assert_eq!(violations(Level::Restricted, 18, json!({})), expected);
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}});
    assert_eq!(violations(Level::Baseline, 31, sysctl.clone()), "forbidden sysctls (net.ipv4.tcp_rmem)");
    assert_eq!(violations(Level::Baseline, 32, sysctl), "");
}

#[test]
fn only_new_images_and_containers_are_judged_again() {
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "a"}]}});
    let mut labelled = pod.clone();
    labelled["metadata"] = json!({"labels": {"a": "b"}});
    assert!(!is_significant(&labelled, &pod));
    let mut image = pod.clone();
    image["spec"]["containers"][0]["image"] = json!("b");
    assert!(is_significant(&image, &pod));
    let mut debug = pod.clone();
    debug["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": "x"}]);
    assert!(is_significant(&debug, &pod));
}

#[test]
fn existing_pods_are_told_of_once_per_reason() {
    let pod = |name: &str, host: bool| -> Pod {
        let value =
            json!({"metadata": {"name": name}, "spec": {"hostNetwork": host, "containers": [{"name": "c"}]}});
        serde_json::from_value(value).expect("pod")
    };
    let enforce = LevelVersion { level: Level::Baseline, version: Version::LATEST };
    let warnings = warn_of_existing("ns", enforce, &[pod("b", true), pod("a", true), pod("c", false)]);
    assert_eq!(
        warnings,
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
        ]
    );
}
