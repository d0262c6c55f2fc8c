//! Services: fields that only make sense for the old type are dropped with it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::{Object, ObjectExt, semantic_eq};

use super::Strategy;

pub(crate) const STRATEGY: Strategy = Strategy::STATUS.update(update).creates_on_update();

fn kind(spec: &Object) -> &str {
    spec.text("type")
}

fn needs_cluster_ip(spec: &Object) -> bool {
    kind(spec) != "ExternalName"
}

fn needs_node_port(spec: &Object) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

fn needs_health_check_port(spec: &Object) -> bool {
    kind(spec) == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn externally_accessible(spec: &Object) -> bool {
    needs_node_port(spec) || (kind(spec) == "ClusterIP" && !spec.list("externalIPs").is_empty())
}

fn node_ports(spec: &Object) -> BTreeSet<i64> {
    spec.each("ports").map(|port| port.int("nodePort")).filter(|port| *port != 0).collect()
}

fn update(new: &mut Object, old: &Object) {
    let (Some(spec), Some(old)) = (new.object_mut("spec"), old.object("spec")) else { return };
    let same = |spec: &Object, key: &str| semantic_eq(spec.get(key), old.get(key));
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        if same(spec, "clusterIP") && same(spec, "clusterIPs") {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, key) {
                spec.remove(key);
            }
        }
    }
    if needs_node_port(old) && !needs_node_port(spec) && node_ports(old).is_superset(&node_ports(spec)) {
        spec.each_mut("ports").for_each(|port| {
            port.remove("nodePort");
        });
    }
    let leaves_balancer = kind(old) == "LoadBalancer" && kind(spec) != "LoadBalancer";
    let drops = [
        (needs_health_check_port(old) && !needs_health_check_port(spec), "healthCheckNodePort"),
        (leaves_balancer, "allocateLoadBalancerNodePorts"),
        (leaves_balancer, "loadBalancerClass"),
        (externally_accessible(old) && !externally_accessible(spec), "externalTrafficPolicy"),
    ];
    for (dropped, key) in drops {
        if dropped && same(spec, key) {
            spec.remove(key);
        }
    }
    if kind(spec) != "LoadBalancer"
        && let Some(status) = new.object_mut("status")
    {
        status.insert("loadBalancer".to_owned(), Value::Object(Object::new()));
    }
}
