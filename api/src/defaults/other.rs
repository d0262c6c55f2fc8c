//! Defaults of the smaller groups.

use serde_json::json;

use crate::json::{Object, ObjectExt};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// EndpointSlice.
pub(crate) fn endpoint_slice(object: &mut Object) {
    for port in object.each_mut("ports") {
        port.or_default("name", "");
        port.or_default("protocol", "TCP");
    }
}

/// NetworkPolicy: it is about ingress, and about egress if it has egress rules.
pub(crate) fn network_policy(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    if spec.list("policyTypes").is_empty() {
        let types =
            if spec.list("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
    for key in ["ingress", "egress"] {
        for port in spec.each_mut(key).flat_map(|rule| rule.each_mut("ports")) {
            port.or_default("protocol", "TCP");
        }
    }
}

/// IngressClass.
pub(crate) fn ingress_class(object: &mut Object) {
    if let Some(parameters) = object.object_mut("spec").and_then(|s| s.object_mut("parameters")) {
        parameters.or_default("scope", "Cluster");
    }
}

/// RoleBinding and ClusterRoleBinding.
pub(crate) fn role_binding(object: &mut Object) {
    if let Some(role) = object.ensure("roleRef") {
        role.or_zero("apiGroup", RBAC_GROUP);
    }
    for subject in object.each_mut("subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            subject.or_zero("apiGroup", RBAC_GROUP);
        }
    }
}

/// PriorityClass.
pub(crate) fn priority_class(object: &mut Object) {
    object.or_default("preemptionPolicy", "PreemptLowerPriority");
}

/// FlowSchema.
pub(crate) fn flow_schema(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        spec.or_zero("matchingPrecedence", 1000);
    }
}

/// PriorityLevelConfiguration.
pub(crate) fn priority_level(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    for (key, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(level) = spec.object_mut(key) {
            level.or_default("nominalConcurrencyShares", shares);
            level.or_default("lendablePercent", 0);
        }
    }
    let response = spec.object_mut("limited").and_then(|l| l.object_mut("limitResponse"));
    if let Some(queuing) = response.and_then(|r| r.object_mut("queuing")) {
        for (key, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            queuing.or_zero(key, value);
        }
    }
}

/// ResourceClaim, and (one level deeper) ResourceClaimTemplate.
pub(crate) fn resource_claim(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        claim_spec(spec);
    }
}

/// ResourceClaimTemplate.
pub(crate) fn resource_claim_template(object: &mut Object) {
    if let Some(spec) = object.ensure("spec").and_then(|s| s.ensure("spec")) {
        claim_spec(spec);
    }
}

fn claim_spec(spec: &mut Object) {
    for request in spec.object_mut("devices").into_iter().flat_map(|d| d.each_mut("requests")) {
        if let Some(exactly) = request.object_mut("exactly") {
            device_request(exactly);
        }
        request.each_mut("firstAvailable").for_each(device_request);
    }
}

fn device_request(request: &mut Object) {
    request.or_zero("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        request.or_zero("count", 1);
    }
    request.each_mut("tolerations").for_each(|toleration| toleration.or_zero("operator", "Equal"));
}

/// ResourceSlice: a taint without a time was added now.
pub(crate) fn resource_slice(object: &mut Object) {
    for device in object.object_mut("spec").into_iter().flat_map(|s| s.each_mut("devices")) {
        for taint in device.each_mut("taints") {
            let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
            taint.or_default("timeAdded", now.to_string());
        }
        for capacity in device.object_mut("capacity").into_iter().flat_map(|c| c.values_mut()) {
            if let Some(value) = capacity.get_mut("value") {
                super::quantity(value, false);
            }
        }
    }
}

/// TokenRequest.
pub(crate) fn token_request(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        spec.or_default("expirationSeconds", 3600);
    }
}

/// CustomResourceDefinition: names follow from the kind, and there is no conversion.
pub(crate) fn custom_resource_definition(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    if let Some(names) = spec.ensure("names") {
        let kind = names.text("kind").to_owned();
        if !kind.is_empty() {
            names.or_zero("singular", kind.to_lowercase());
            names.or_zero("listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = spec.ensure("conversion") {
        conversion.or_zero("strategy", "None");
        let config = conversion.object_mut("webhook").and_then(|w| w.object_mut("clientConfig"));
        if let Some(service) = config.and_then(|c| c.object_mut("service")) {
            service.or_default("port", 443);
        }
    }
    let storage = spec.list("versions").iter().find(|version| version["storage"] == true);
    let storage = storage.map(|version| version["name"].clone());
    if let Some(storage) = storage
        && object.object("status").is_none_or(|status| status.list("storedVersions").is_empty())
        && let Some(status) = object.ensure("status")
    {
        status.insert("storedVersions".to_owned(), json!([storage]));
    }
}

/// APIService.
pub(crate) fn api_service(object: &mut Object) {
    let service = object.object_mut("spec").and_then(|s| s.object_mut("service"));
    if let Some(service) = service {
        service.or_default("port", 443);
    }
}
