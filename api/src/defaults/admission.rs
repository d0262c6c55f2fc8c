//! Defaults of webhooks and admission policies.

use serde_json::json;

use crate::json::{Object, ObjectExt};

fn webhook(webhook: &mut Object) {
    webhook.or_default("failurePolicy", "Fail");
    match_resources(webhook);
    webhook.or_default("timeoutSeconds", 10);
    if let Some(service) = webhook.object_mut("clientConfig").and_then(|c| c.object_mut("service")) {
        service.or_default("port", 443);
    }
    rules(webhook, "rules");
}

fn match_resources(object: &mut Object) {
    object.or_default("matchPolicy", "Equivalent");
    object.or_default("namespaceSelector", json!({}));
    object.or_default("objectSelector", json!({}));
}

fn rules(object: &mut Object, key: &str) {
    object.each_mut(key).for_each(|rule| rule.or_default("scope", "*"));
}

/// ValidatingWebhookConfiguration.
pub(crate) fn validating_webhooks(object: &mut Object) {
    object.each_mut("webhooks").for_each(webhook);
}

/// MutatingWebhookConfiguration.
pub(crate) fn mutating_webhooks(object: &mut Object) {
    for hook in object.each_mut("webhooks") {
        webhook(hook);
        hook.or_default("reinvocationPolicy", "Never");
    }
}

/// ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
pub(crate) fn policy(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        spec.or_default("failurePolicy", "Fail");
        constraints(spec, "matchConstraints");
    }
}

/// The bindings of both.
pub(crate) fn policy_binding(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        constraints(spec, "matchResources");
    }
}

fn constraints(spec: &mut Object, key: &str) {
    if let Some(constraints) = spec.object_mut(key) {
        match_resources(constraints);
        rules(constraints, "resourceRules");
        rules(constraints, "excludeResourceRules");
    }
}
