//! Server-side apply of built-in kinds: the cases of upstream's `fieldmanager_test.go` and
//! `internal/lastapplied*_test.go`.

use serde_json::{Value, json};

use super::*;

/// An object and the requests on it.
struct Server {
    kind: GroupVersionKind,
    live: Option<Value>,
    second: u32,
}

impl Server {
    fn new(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { kind: GroupVersionKind::new(group, version, kind), live: None, second: 0 }
    }

    fn with<T>(&mut self, run: impl FnOnce(FieldManager<'_>, Option<&Value>) -> T) -> T {
        self.second += 1;
        let now = format!("2026-01-01T00:{:02}:{:02}Z", self.second / 60, self.second % 60);
        let versions = BuiltIn::new(self.kind.clone(), None);
        let manager = FieldManager { versions: &versions, kind: &self.kind, subresource: "", now: &now };
        run(manager, self.live.as_ref())
    }

    fn keep(&mut self, mut object: Value) {
        object["metadata"]["uid"] = "u".into();
        self.live = Some(object);
    }

    fn apply(&mut self, config: &Value, manager: &str, force: bool) -> Result<(), ApiError> {
        let object = self.with(|fields, live| fields.apply(live, config, manager, force))?;
        self.keep(object);
        Ok(())
    }

    fn update(&mut self, object: &Value, manager: &str) {
        let versions = BuiltIn::new(self.kind.clone(), None);
        let mut object = versions.settle(object.clone()).expect("an object of the kind");
        if self.live.is_some() {
            object["metadata"]["uid"] = "u".into();
        }
        self.with(|fields, live| fields.update(live, &mut object, manager));
        self.keep(object);
    }

    fn live(&self) -> &Value {
        self.live.as_ref().expect("an object")
    }

    fn entries(&self) -> &[Value] {
        self.live()["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ApiError>) -> (u16, String) {
    let error = outcome.expect_err("refused");
    (error.code(), error.message().to_owned())
}

#[test]
fn what_others_set_is_a_conflict_unless_forced() {
    let mut server = Server::new("apps", "v1", "Deployment");
    server.update(&deployment(json!({"replicas": 3})), "maker");
    let config = deployment(json!({"replicas": 101, "paused": true}));
    let error = server.apply(&config, "alice", false).expect_err("a conflict");
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.message(),
        "Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas"
    );
    server.apply(&config, "alice", true).expect("forced");
    assert_eq!(server.live()["spec"]["replicas"], 101);
    assert_eq!(server.entries()[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    assert_eq!(server.entries()[1]["fieldsV1"]["f:spec"]["f:replicas"], Value::Null);
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let mut server = Server::new("", "v1", "ConfigMap");
    server.apply(&config_map(json!({"a": "1"})), "zoe", false).expect("new");
    server.apply(&config_map(json!({"b": "1", "c": "1"})), "bob", false).expect("nobody's");
    let error = server.apply(&config_map(json!({"a": "2", "b": "2", "c": "2"})), "eve", false);
    let (code, message) = code(error);
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Apply failed with 3 conflicts: conflicts with \"bob\":\n- .data.b\n- .data.c\nconflicts with \"zoe\":\n- .data.a"
    );
}

#[test]
fn fields_no_longer_applied_go_away_unless_somebody_has_them() {
    let mut server = Server::new("", "v1", "ConfigMap");
    server.apply(&config_map(json!({"a": "1", "b": "1", "c": "1"})), "alice", false).expect("new");
    server.apply(&config_map(json!({"b": "1"})), "bob", false).expect("the same value");
    let mut object = server.live().clone();
    object["data"]["d"] = "1".into();
    server.update(&object, "updater");
    server.apply(&config_map(json!({"a": "1"})), "alice", false).expect("own fields");
    assert_eq!(server.live()["data"], json!({"a": "1", "b": "1", "d": "1"}));
    server.apply(&config_map(json!({})), "bob", false).expect("own fields");
    assert_eq!(server.live()["data"], json!({"a": "1", "d": "1"}));
}

#[test]
fn applying_nothing_new_changes_nothing() {
    let mut server = Server::new("apps", "v1", "Deployment");
    let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]);
    let config = deployment(json!({"replicas": 1, "template": {"spec": {"containers": containers}}}));
    server.apply(&config, "alice", false).expect("new");
    let before = server.live().clone();
    server.apply(&config, "alice", false).expect("own fields");
    assert_eq!(server.live(), &before);
    // Another manager of the same values is an entry more, without a time.
    server.apply(&config, "bob", false).expect("the same values");
    assert_eq!(server.entries().len(), 2);
    assert_eq!(server.entries()[0]["manager"], "bob");
    assert_eq!(server.entries()[0]["time"], Value::Null);
    let before = server.live().clone();
    let object = before.clone();
    server.update(&object, "updater");
    assert_eq!(server.live(), &before);
}

#[test]
fn keys_may_be_left_to_their_defaults() {
    let mut server = Server::new("", "v1", "Service");
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    server.apply(&service(json!([{"port": 80, "targetPort": 1}])), "alice", false).expect("new");
    let both = json!([{"port": 80, "targetPort": 1}, {"port": 80, "protocol": "UDP", "name": "u"}]);
    server.apply(&service(both), "alice", false).expect("own fields");
    let ports = server.live()["spec"]["ports"].as_array().expect("ports").clone();
    let protocols: Vec<&Value> = ports.iter().map(|port| &port["protocol"]).collect();
    assert_eq!(protocols, ["TCP", "UDP"]);
    let error =
        server.apply(&service(json!([{"port": 80}, {"port": 80, "protocol": "TCP"}])), "alice", false);
    assert_eq!(
        code(error),
        (
            500,
            "failed to create typed patch object (/s; /v1, Kind=Service): .spec.ports: duplicate entries for key \
             [port=80,protocol=\"TCP\"]"
                .to_owned()
        )
    );
}

#[test]
fn configurations_of_other_kinds_are_refused() {
    let mut server = Server::new("apps", "v1", "Deployment");
    let kind =
        |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "d"}});
    for (config, shown) in [
        (kind("apps/v1beta1", "Deployment"), "apps/v1beta1, Kind=Deployment"),
        (kind("v1", "Pod"), "/v1, Kind=Pod"),
        (json!({}), "/, Kind="),
    ] {
        let wanted = (400, format!("invalid object type: {shown}"));
        assert_eq!(code(server.apply(&config, "alice", false)), wanted);
    }
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    let wanted = (400, "metadata.managedFields must be nil".to_owned());
    assert_eq!(code(server.apply(&managed, "alice", false)), wanted);
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstreams_words() {
    let mut server = Server::new("apps", "v1", "Deployment");
    let cpu = |cpu: Value| {
        let container = json!({"name": "c", "resources": {"limits": {"cpu": cpu}}});
        json!({"template": {"spec": {"containers": [container]}}})
    };
    let typed = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): ";
    let converted = "failed to convert new object (/d; apps/v1, Kind=Deployment) to proper version: unable to convert \
                     unstructured object to apps/v1, Kind=Deployment: ";
    for (spec, wanted) in [
        (json!({"replica": 1}), format!("{typed}.spec.replica: field not declared in schema")),
        (
            json!({"replicas": "1"}),
            format!("{typed}.spec.replicas: expected numeric (int or float), got string"),
        ),
        (json!({"paused": "yes"}), format!("{typed}.spec.paused: expected boolean, got &{{yes}}")),
        (json!({"strategy": [1]}), format!("{typed}.spec.strategy: expected map, got &{{[1]}}")),
        (
            json!({"strategy": {"type": 7}}),
            format!("{typed}.spec.strategy.type: expected string, got &value.valueUnstructured{{Value:7}}"),
        ),
        (
            json!({"template": {"spec": {"containers": [null]}}}),
            format!(
                "{typed}.spec.template.spec.containers: element 0: associative list with keys may not have a null \
                 element"
            ),
        ),
        (json!({"replicas": 1.5}), format!("{converted}cannot convert float64 to int32")),
        (
            cpu(json!("lots")),
            format!(
                "{converted}quantities must match the regular expression \
                 '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ),
        ),
    ] {
        let found = code(server.apply(&deployment(spec.clone()), "alice", false));
        assert_eq!(found, (500, wanted), "{spec}");
    }
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut server = Server::new("", "v1", "ConfigMap");
    server.update(&config_map(json!({"a": "1"})), "maker");
    server.live.as_mut().expect("an object")["metadata"]["managedFields"] = json!(null);
    let (code, message) = code(server.apply(&config_map(json!({"a": "2"})), "alice", false));
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    server.apply(&config_map(json!({"b": "2"})), "alice", false).expect("nobody's");
    assert_eq!(server.entries()[1]["manager"], "before-first-apply");
    assert_eq!(server.entries()[1]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));
}

#[test]
fn owners_in_another_version_count() {
    let mut server = Server::new("autoscaling", "v2", "HorizontalPodAutoscaler");
    let hpa = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let spec = json!({"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": target});
    server.apply(&hpa("autoscaling/v2", spec), "alice", false).expect("new");
    let v2 = server.kind.clone();
    let v1 = GroupVersionKind::new("autoscaling", "v1", "HorizontalPodAutoscaler");
    server.live = server.live.take().map(|object| crate::convert::convert(&v2, &v1, object));
    server.kind = v1;
    let outcome = server.apply(&hpa("autoscaling/v1", json!({"maxReplicas": 9})), "bob", false);
    assert_eq!(
        code(outcome),
        (409, "Apply failed with 1 conflict: conflict with \"alice\": .spec.maxReplicas".to_owned())
    );
    let less = json!({"maxReplicas": 6, "scaleTargetRef": target});
    server.apply(&hpa("autoscaling/v1", less), "alice", false).expect("own fields");
    // What was applied in the other version is gone, but for the default.
    assert_eq!(server.live()["spec"]["minReplicas"], 1);
    assert_eq!(server.entries().len(), 1);
    assert_eq!(server.entries()[0]["apiVersion"], "autoscaling/v1");
}

fn without_name(mut object: Value) -> Value {
    object["metadata"]["name"] = "n".into();
    object
}

/// Whether `live` says all that `config` says.
fn says(live: &Value, config: &Value) -> bool {
    match (live, config) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(config)) => {
            config.iter().all(|(key, value)| says(live.get(key).unwrap_or(&Value::Null), value))
        }
        (Value::Null, Value::Object(config)) => config.is_empty(),
        (Value::Array(live), Value::Array(config)) => {
            live.len() == config.len() && live.iter().zip(config).all(|(live, config)| says(live, config))
        }
        _ => live == config,
    }
}

// Upstream's TestApplyUsingLastAppliedAnnotation and its like.
#[test]
fn kubectl_keeps_what_it_applied_on_its_side() {
    let mut count = 0;
    for line in include_str!("cases/last_applied.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let (name, applied) = (&case["test"], &case["applied"]);
        let version = GroupVersion::parse(case["version"].as_str().expect("a version")).expect("a version");
        let kind = version.with_kind(case["kind"].as_str().expect("a kind").to_owned());
        let mut server = Server { kind, live: None, second: 0 };
        let last = match &case["lastApplied"] {
            Value::Null => case["original"].to_string(),
            Value::String(_) => String::new(),
            last => last.to_string(),
        };
        let mut original = case["original"].clone();
        original["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = last.into();
        server.update(&original, "test_client_side_apply");
        let manager = case["manager"].as_str().expect("a manager");
        let outcome = server.apply(applied, manager, false);
        match case.get("conflicts") {
            None => outcome.unwrap_or_else(|error| panic!("{name}: {error}")),
            Some(wanted) => {
                let error = outcome.expect_err("a conflict");
                assert_eq!(error.code(), 409, "{name}: {error}");
                let causes =
                    error.status.details.clone().and_then(|details| details.causes).unwrap_or_default();
                let found: Vec<String> = causes.into_iter().filter_map(|cause| cause.field).collect();
                let paths = Set::decode(wanted).expect("well formed").paths();
                let wanted: Vec<String> = paths.iter().map(ToString::to_string).collect();
                assert_eq!(found, wanted, "{name}");
                server.apply(applied, manager, true).expect("forced");
            }
        }
        assert!(says(server.live(), applied), "{name}: {}", server.live());
        count += 1;
    }
    assert!(count >= 20, "{count} cases");
}

// Upstream's TestLastAppliedUpdater and TestLargeLastApplied.
#[test]
fn the_annotation_follows_what_kubectl_applies() {
    const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut original = without_name(config_map(json!({"a": "1"})));
    original["metadata"]["annotations"] = json!({ANNOTATION: original.to_string()});
    let config = without_name(config_map(json!({"a": "<2>"})));
    let annotation = |server: &Server| server.live()["metadata"]["annotations"][ANNOTATION].clone();
    let mut server = Server::new("", "v1", "ConfigMap");
    server.update(&original, "kubectl-client-side-apply");
    let before = annotation(&server);
    server.apply(&config, "another", true).expect("forced");
    assert_eq!(annotation(&server), before);
    server.apply(&config, "kubectl", true).expect("forced");
    let text = config.to_string().replace('<', "\\u003c").replace('>', "\\u003e") + "\n";
    assert_eq!(annotation(&server), text);
    let large = without_name(config_map(json!({"a": "x".repeat(200 * 1024), "b": "y".repeat(100 * 1024)})));
    server.apply(&large, "kubectl", true).expect("forced");
    assert_eq!(annotation(&server), Value::Null);
}
