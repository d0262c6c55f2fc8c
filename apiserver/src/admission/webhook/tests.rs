//! Reviews, and the webhooks that are configured.

use api::names::{GroupVersionKind, GroupVersionResource};
use base64::Engine as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use super::*;
use crate::admission::Operation;
use crate::admission::testing::Write;
use crate::webhook::Place;

fn invocation() -> Invocation {
    Invocation {
        matched: Matched {
            resource: GroupVersionResource::new("apps", "v1beta1", "deployments"),
            kind: GroupVersionKind::new("apps", "v1beta1", "Deployment"),
        },
        object: json!({"metadata": {"name": "web"}}),
        old: Value::Null,
    }
}

fn ask(versions: &[&str]) -> Result<review::Review, String> {
    let write = Write::new("apps", "Deployment", "deployments");
    let versions: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
    review::ask(&write.attributes(Operation::Create, "", "web"), &invocation(), &versions)
}

#[test]
fn a_review_says_what_was_asked_for_and_what_it_was_matched_as() {
    let review = ask(&["v2", "v1beta1", "v1"]).expect("a review");
    assert_eq!(review.body["apiVersion"], "admission.k8s.io/v1beta1");
    let request = &review.body["request"];
    assert_eq!(request["kind"], json!({"group": "apps", "version": "v1beta1", "kind": "Deployment"}));
    assert_eq!(request["requestKind"]["version"], "v1");
    assert_eq!(request["requestResource"]["resource"], "deployments");
    assert_eq!((&request["operation"], &request["namespace"]), (&json!("CREATE"), &json!("ns")));
    assert_eq!((&request["oldObject"], &request["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(request["userInfo"]["username"], "alice");
    assert!(request.get("subResource").is_none());
    assert_eq!(
        ask(&["v3"]).err().as_deref(),
        Some("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
    );
}

// After upstream's TestVerifyAdmissionResponse.
#[test]
fn answers_are_checked() {
    let patch = base64::engine::general_purpose::STANDARD.encode("[]");
    let answer = |uid: &str, response: Value| {
        let mut answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        answer["response"]["uid"] = uid.into();
        answer
    };
    let review = ask(&["v1"]).expect("a review");
    let own = |response: Value| answer(&review.uid, response);
    let mut nameless = own(json!({"allowed": true}));
    nameless["kind"] = "".into();
    let expected_uid = format!("expected response.uid={:?}, got \"other\"", review.uid);
    for (answer, mutating, expected) in [
        (json!({}), true, Err("webhook response was absent")),
        (answer("other", json!({})), true, Err(expected_uid.as_str())),
        (
            nameless,
            true,
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                 admission.k8s.io/v1, Kind="),
        ),
        (
            own(json!({"patch": patch})),
            true,
            Err("webhook returned response.patch but not response.patchType"),
        ),
        (
            own(json!({"patchType": "JSONPatch"})),
            true,
            Err("webhook returned response.patchType but not response.patch"),
        ),
        (
            own(json!({"patch": patch, "patchType": ""})),
            true,
            Err("webhook returned invalid response.patchType of \"\""),
        ),
        (own(json!({"patch": patch})), false, Err("validating webhook may not return response.patch")),
        (own(json!({"patchType": ""})), false, Err("validating webhook may not return response.patchType")),
        (own(json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})), true, Ok(true)),
        (own(json!({"allowed": false, "status": {"message": "no", "code": 403}})), false, Ok(false)),
    ] {
        let found = review.accept(answer.clone(), mutating);
        let found = found.as_ref().map(|verdict| verdict.allowed).map_err(String::as_str);
        assert_eq!(found, expected, "{answer}");
    }
    let loose = ask(&["v1beta1"]).expect("a review");
    let verdict =
        loose.accept(json!({"response": {"uid": "other", "patch": patch}}), true).expect("believed");
    assert_eq!((verdict.patch.as_slice(), verdict.patch_type.as_str()), (&b"[]"[..], "JSONPatch"));
    let verdict = loose.accept(json!({"response": {"patch": patch}}), false).expect("believed");
    assert!(verdict.patch.is_empty());
}

// After upstream's TestToStatusErr.
#[test]
fn denials_say_who_denied_and_why() {
    let status = |status: Value| serde_json::from_value::<Status>(status).expect("a status");
    let denied = "admission webhook \"hook\" denied the request";
    for (result, message, code) in [
        (None, " without explanation", 400),
        (Some(json!({"message": "no", "reason": "Forbidden", "code": 403})), ": no", 403),
        (Some(json!({"reason": "Forbidden"})), ": Forbidden", 400),
        (Some(json!({"status": "Success", "code": 200})), " without explanation", 400),
    ] {
        let error = review::denied("hook", result.map(status));
        assert_eq!((error.message(), error.code()), (format!("{denied}{message}").as_str(), code));
        assert_eq!(error.status.status.as_deref(), Some("Failure"));
    }
}

#[test]
fn webhooks_of_one_name_are_told_apart() {
    let hook = |config: Value| -> MutatingWebhook {
        let hook = json!({"name": "a.example.com", "clientConfig": config, "sideEffects": "None",
                          "admissionReviewVersions": ["v1"], "reinvocationPolicy": "IfNeeded",
                          "failurePolicy": "Ignore", "timeoutSeconds": 3});
        serde_json::from_value(hook).expect("a webhook")
    };
    let by_service = json!({"service": {"namespace": "n", "name": "s"}});
    let hooks =
        source::ready("config", vec![hook(by_service), hook(json!({"url": "https://x"})), hook(json!({}))]);
    let keys: Vec<&str> = hooks.iter().map(|hook| hook.key.as_str()).collect();
    assert_eq!(keys, ["config/a.example.com/0", "config/a.example.com/1", "config/a.example.com/2"]);
    assert!(hooks[0].again && !hooks[0].fails && hooks[0].limit.as_secs() == 3);
    let place = hooks[0].client.as_ref().map(|config| config.place.clone());
    assert!(matches!(place, Ok(Place::Service { service, .. }) if service.port == 443));
    assert_eq!(
        hooks[2].client.as_ref().err().map(String::as_str),
        Some("webhook configuration must have either service or URL")
    );
}

#[test]
fn configurations_of_admission_are_exempt() {
    let kind = |kind: &'static str| GroupVersionKind::new("admissionregistration.k8s.io", "v1", kind);
    assert!(is_exempt(&kind("MutatingWebhookConfiguration")));
    assert!(!is_exempt(&GroupVersionKind::new("", "v1", "ConfigMap")));
}
