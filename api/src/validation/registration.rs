//! APIServices (upstream `kube-aggregator/pkg/apis/apiregistration/validation`).

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};

use crate::field::{ErrorList, Path, Report, quote};
use crate::format;

use super::meta;
use super::rules::{check, list, text};

/// A new service of the API.
pub(crate) fn service(object: &APIService) -> ErrorList {
    let empty = APIServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let (group, version) = (text(&spec.group), text(&spec.version));
    let mut errors = named_after(object, &format!("{version}.{group}"));
    let path = Path::new("metadata");
    errors.extend(meta::validate(&object.metadata, false, format::name_is_path_segment, &path));
    let path = Path::new("spec");
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.required(&path.child("group"), detail);
    }
    if !group.is_empty() {
        errors.extend(check(&path.child("group"), group, format::dns1123_subdomain(group)));
    }
    errors.extend(check(&path.child("version"), version, format::dns1035_label(version)));
    let priorities = [
        ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
        ("versionPriority", spec.version_priority, 1_000),
    ];
    for (key, value, max) in priorities.into_iter().filter(|(_, value, max)| !(1..=*max).contains(value)) {
        errors.invalid(&path.child(key), value, format!("must be positive and less than {max}"));
    }
    backend(spec, &path, &mut errors);
    errors
}

/// The name says which version of which group it is.
fn named_after(object: &APIService, required: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let meta = &object.metadata;
    for (key, name) in [("generateName", text(&meta.generate_name)), ("name", text(&meta.name))] {
        let usable = !name.is_empty() && format::path_segment_name(name).is_empty();
        if usable && name != required {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {}", quote(required));
            errors.invalid(&Path::new("metadata").child(key), name, detail);
        }
    }
    errors
}

/// Where the version is served, if not here.
fn backend(spec: &APIServiceSpec, path: &Path, errors: &mut ErrorList) {
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    let insecure_path = path.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle != 0 {
            let shown = format!("{bundle} bytes");
            errors.invalid(&path.child("caBundle"), shown, "local APIServices may not have a caBundle");
        }
        if insecure {
            errors.invalid(&insecure_path, true, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    };
    let path = path.child("service");
    for (key, value) in [("namespace", text(&service.namespace)), ("name", text(&service.name))] {
        if value.is_empty() {
            errors.required(&path.child(key), "");
        }
    }
    let port = service.port.unwrap_or(0);
    let messages = format::port_number(port.into());
    if !messages.is_empty() {
        errors.invalid(&path.child("port"), port, format!("port is not valid: {}", messages.join(", ")));
    }
    if insecure && bundle > 0 {
        errors.invalid(&insecure_path, true, "may not be true if caBundle is present");
    }
}

/// A changed service of the API.
pub(crate) fn service_update(new: &APIService, old: &APIService) -> ErrorList {
    let mut errors = meta::validate_update(&new.metadata, &old.metadata, &Path::new("metadata"));
    errors.extend(service(new));
    errors
}

/// A changed status.
pub(crate) fn service_status(new: &APIService, old: &APIService) -> ErrorList {
    let mut errors = meta::validate_update(&new.metadata, &old.metadata, &Path::new("metadata"));
    let path = Path::new("status").child("conditions");
    let conditions = new.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default();
    for (i, condition) in conditions.iter().enumerate() {
        let known = ["True", "False", "Unknown"];
        errors.one_of(&path.index(i).child("status"), &condition.status, &known);
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(spec: Value, name: &str) -> Vec<String> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).expect("an APIService");
        service(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        let good = json!({"group": "a.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        assert_eq!(messages(good.clone(), "v1.a.io"), Vec::<String>::new());
        assert_eq!(
            messages(good.clone(), "other"),
            ["metadata.name: Invalid value: \"other\": must be `spec.version+\".\"+spec.group`: \"v1.a.io\""]
        );
        let with = |extra: Value| {
            let mut spec = good.clone();
            for (key, value) in extra.as_object().expect("an object") {
                spec[key] = value.clone();
            }
            messages(spec, "v1.a.io").join("; ")
        };
        for (extra, want) in [
            (
                json!({"groupPriorityMinimum": 20001}),
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            ),
            (
                json!({"versionPriority": 0}),
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ),
            (
                json!({"caBundle": "YWJj"}),
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            ),
            (
                json!({"insecureSkipTLSVerify": true}),
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ),
            (
                json!({"service": {"port": 70000}}),
                "spec.service.namespace: Required value; spec.service.name: Required value; \
                 spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"service": {"name": "a", "namespace": "b", "port": 443}, "caBundle": "YWJj", "insecureSkipTLSVerify": true}),
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ),
        ] {
            assert_eq!(with(extra), want);
        }
    }

    #[test]
    fn conditions_have_known_states() {
        let object = |status: &str| {
            let condition = json!({"type": "Available", "status": status});
            let meta = json!({"name": "v1.a.io", "resourceVersion": "1"});
            serde_json::from_value(json!({"metadata": meta, "status": {"conditions": [condition]}}))
                .expect("an APIService")
        };
        assert!(service_status(&object("True"), &object("True")).is_empty());
        assert_eq!(
            service_status(&object("Odd"), &object("True"))[0].to_string(),
            "status.conditions[0].status: Unsupported value: \"Odd\": supported values: \"True\", \"False\", \"Unknown\""
        );
    }
}
