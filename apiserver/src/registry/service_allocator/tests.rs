//! Families and policy of Services, and how they are written into the object.

use super::*;

fn spec(value: Value) -> ServiceSpec {
    serde_json::from_value(value).expect("spec")
}

fn init(value: Value, old: Option<Value>, configured: &[&str]) -> Result<(String, Vec<String>), String> {
    let mut spec = spec(value);
    let old = old.map(self::spec);
    init_families(&mut spec, old.as_ref(), "x", configured).map_err(|error| error.message().to_owned())?;
    Ok((policy(&spec).to_owned(), families(&spec).to_vec()))
}

#[test]
fn families_and_policy_are_decided() {
    let single = &["IPv4"][..];
    let dual = &["IPv4", "IPv6"][..];
    for (given, configured, policy, families) in [
        (json!({}), single, "SingleStack", vec!["IPv4"]),
        (json!({}), dual, "SingleStack", vec!["IPv4"]),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), single, "PreferDualStack", vec!["IPv4"]),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), dual, "PreferDualStack", vec!["IPv4", "IPv6"]),
        (json!({"ipFamilies": ["IPv6"]}), dual, "SingleStack", vec!["IPv6"]),
        (json!({"clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}), dual, "SingleStack", vec!["IPv6"]),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            single,
            "RequireDualStack",
            vec!["IPv4", "IPv6"],
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
            single,
            "SingleStack",
            vec!["IPv4"],
        ),
    ] {
        let expected = (policy.to_owned(), families.into_iter().map(str::to_owned).collect());
        assert_eq!(init(given.clone(), None, configured), Ok(expected), "{given}");
    }
}

#[test]
fn what_the_cluster_cannot_give_is_refused() {
    for (given, expected) in [
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "Service \"x\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
             configured for dual-stack services",
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            "Service \"x\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
            "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match \
             `clusterIP`",
        ),
        (
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            "Service \"x\" is invalid: spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on \
             this cluster",
        ),
    ] {
        assert_eq!(init(given, None, &["IPv4"]), Err(expected.to_owned()));
    }
}

#[test]
fn updates_keep_what_they_leave_out() {
    let old = spec(json!({
        "type": "NodePort", "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"],
        "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]}));
    let mut new = spec(json!({
        "type": "NodePort", "ports": [{"name": "b", "port": 2}, {"name": "c", "port": 3}]}));
    carry_over(&mut new, &old);
    assert_eq!(cluster_ips(&new), ["10.0.0.5"]);
    assert_eq!(node_ports(&new), [30002]);
}

#[test]
fn the_single_address_leads() {
    let old = spec(json!({"clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]}));
    for (given, expected) in [
        (json!({"clusterIP": "10.0.0.5"}), vec!["10.0.0.5"]),
        (json!({"clusterIP": "10.0.0.6", "clusterIPs": ["10.0.0.5"]}), vec!["10.0.0.6"]),
        (json!({"clusterIPs": ["10.0.0.5"]}), vec![]),
    ] {
        let mut new = spec(given);
        normalize_cluster_ips(&mut new, &old);
        assert_eq!(cluster_ips(&new), expected);
    }
}

#[test]
fn decisions_are_written_into_the_object() {
    let mut object = json!({"spec": {"ports": [{"port": 1}], "clusterIP": "", "own": 1}});
    let spec = spec(json!({
        "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"], "ports": [{"port": 1, "nodePort": 30001}]}));
    write_back(&mut object, &spec);
    let expected = json!({"spec": {
        "ports": [{"port": 1, "nodePort": 30001}], "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"], "own": 1}});
    assert_eq!(object, expected);
}
