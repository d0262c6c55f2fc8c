//! Defaults of pods and of the pod templates inside of workloads.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};
use crate::pod as rules;

use super::{image, quantity, resource_list, resources, volume};

/// A pod: what a template gets, and what only pods get.
pub(crate) fn pod(pod: &mut Object) {
    if let Some(spec) = pod.ensure("spec") {
        requests_from_limits(spec);
        pod_level_resources(spec);
        spec.or_default("enableServiceLinks", true);
        if spec.flag("hostNetwork") {
            ["containers", "initContainers"].iter().for_each(|key| host_ports(spec, key));
        }
        pod_spec(spec);
        // As upstream's conversion has it, of pods though not of templates.
        if spec.int("terminationGracePeriodSeconds") < 0 {
            spec.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
        }
    }
    drop_init_container_annotations(pod);
    status(pod);
}

/// The annotations in which init containers were kept once; they would bring back what the spec no longer says.
fn drop_init_container_annotations(pod: &mut Object) {
    let annotations = pod.object_mut("metadata").and_then(|m| m.object_mut("annotations"));
    if let Some(annotations) = annotations {
        for name in ["init-containers", "init-container-statuses"] {
            annotations.remove(&format!("pod.alpha.kubernetes.io/{name}"));
            annotations.remove(&format!("pod.beta.kubernetes.io/{name}"));
        }
    }
}

/// A template at `key`.
pub(crate) fn template(object: &mut Object, key: &str) {
    if let Some(template) = object.ensure(key) {
        drop_init_container_annotations(template);
        if let Some(spec) = template.ensure("spec") {
            pod_spec(spec);
        }
    }
}

fn status(pod: &mut Object) {
    let Some(status) = pod.object_mut("status") else { return };
    // As upstream's conversion: the single address is the first of the many, and wins if they differ.
    let single = status.text("podIP").to_owned();
    if !single.is_empty() && status.each("podIPs").next().is_none_or(|first| first.text("ip") != single) {
        status.insert("podIPs".to_owned(), json!([{ "ip": single }]));
    } else if single.is_empty() {
        let first = status.each("podIPs").next().map(|first| first.text("ip").to_owned());
        if let Some(first) = first {
            status.insert("podIP".to_owned(), Value::String(first));
        }
    }
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in status.each_mut(key) {
            resource_list(container, "allocatedResources");
            resources(container, "resources");
        }
    }
    resource_list(status, "allocatedResources");
    resources(status, "resources");
}

fn requests_from_limits(spec: &mut Object) {
    for key in ["containers", "initContainers"] {
        for container in spec.each_mut(key) {
            let Some(resources) = container.object_mut("resources") else { continue };
            let Some(limits) = resources.object("limits").cloned() else { continue };
            if let Some(requests) = resources.ensure("requests") {
                limits.into_iter().for_each(|(name, amount)| requests.or_default(&name, amount));
            }
        }
    }
}

/// Pod-level limits of huge pages follow from the containers' limits, requests from the containers' requests and then
/// from the pod's own limits.
fn pod_level_resources(spec: &mut Object) {
    if spec.object("resources").is_none() {
        return;
    }
    let Ok(typed) = serde_json::from_value::<PodSpec>(Value::Object(spec.clone())) else { return };
    let Some(resources) = spec.object_mut("resources") else { return };
    let is_empty = |resources: &Object, key| resources.object(key).is_none_or(Object::is_empty);
    if !(is_empty(resources, "limits") && is_empty(resources, "requests")) {
        for (name, amount) in rules::aggregate_container_limits(&typed) {
            let requested = resources.object("requests").is_some_and(|r| r.contains_key(&name));
            if name.starts_with("hugepages-")
                && !requested
                && let Some(limits) = resources.ensure("limits")
            {
                limits.or_default(&name, amount.to_string());
            }
        }
    }
    if is_empty(resources, "limits") {
        return;
    }
    let mut requests = resources.object("requests").cloned().unwrap_or_default();
    for (name, amount) in rules::aggregate_container_requests(&typed) {
        if matches!(name.as_str(), "cpu" | "memory") {
            requests.or_default(&name, amount.to_string());
        }
    }
    for (name, amount) in resources.object("limits").into_iter().flatten() {
        if rules::is_pod_level(name) {
            requests.or_default(name, amount.clone());
        }
    }
    if !requests.is_empty() {
        resources.insert("requests".to_owned(), Value::Object(requests));
    }
}

fn host_ports(spec: &mut Object, key: &str) {
    for port in spec.each_mut(key).flat_map(|c| c.each_mut("ports")) {
        let number = port.int("containerPort");
        port.or_zero("hostPort", number);
    }
}

/// The spec of a pod or template.
pub(crate) fn pod_spec(spec: &mut Object) {
    spec.or_zero("dnsPolicy", "ClusterFirst");
    spec.or_zero("restartPolicy", "Always");
    spec.or_default("securityContext", json!({}));
    spec.or_default("terminationGracePeriodSeconds", 30);
    spec.or_zero("schedulerName", "default-scheduler");
    let account =
        [spec.text("serviceAccountName"), spec.text("serviceAccount")].into_iter().find(|a| !a.is_empty());
    if let Some(account) = account.map(str::to_owned) {
        spec.insert("serviceAccountName".to_owned(), Value::String(account.clone()));
        spec.insert("serviceAccount".to_owned(), Value::String(account));
    }
    spec.each_mut("volumes").for_each(volume::volume);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        spec.each_mut(key).for_each(container);
    }
    resource_list(spec, "overhead");
    resources(spec, "resources");
}

fn container(container: &mut Object) {
    let policy = image::default_pull_policy(container.text("image"));
    container.or_zero("imagePullPolicy", policy);
    container.or_zero("terminationMessagePath", "/dev/termination-log");
    container.or_zero("terminationMessagePolicy", "File");
    container.each_mut("ports").for_each(|port| port.or_zero("protocol", "TCP"));
    for source in container.each_mut("env").filter_map(|env| env.object_mut("valueFrom")) {
        if let Some(field) = source.object_mut("fieldRef") {
            field.or_zero("apiVersion", "v1");
        }
        if let Some(file) = source.object_mut("fileKeyRef") {
            file.or_default("optional", false);
        }
        if let Some(resource) = source.object_mut("resourceFieldRef") {
            resource.or_default("divisor", "0");
            if let Some(divisor) = resource.get_mut("divisor") {
                quantity(divisor, false);
            }
        }
    }
    resources(container, "resources");
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.object_mut(key) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = container.object_mut("lifecycle") {
        for key in ["postStart", "preStop"] {
            lifecycle.object_mut(key).and_then(|hook| hook.object_mut("httpGet")).map(http_get);
        }
    }
}

fn probe(probe: &mut Object) {
    for (key, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        probe.or_zero(key, value);
    }
    probe.object_mut("httpGet").map(http_get);
    if let Some(grpc) = probe.object_mut("grpc") {
        grpc.or_default("service", "");
    }
}

fn http_get(action: &mut Object) {
    action.or_zero("path", "/");
    action.or_zero("scheme", "HTTP");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_a_second_at_least_where_less_than_nothing_was_asked_for() {
        for (asked, given) in
            [(json!(null), 30), (json!(0), 0), (json!(-1), 1), (json!(-30), 1), (json!(7), 7)]
        {
            let Value::Object(mut object) = json!({"spec": {"terminationGracePeriodSeconds": asked}}) else {
                unreachable!("it is an object")
            };
            pod(&mut object);
            assert_eq!(object["spec"]["terminationGracePeriodSeconds"], given, "{asked}");
        }
    }
}
