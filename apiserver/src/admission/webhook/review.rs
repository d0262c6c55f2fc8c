//! AdmissionReviews: what a webhook is asked, and what is believed of its answer (upstream
//! `webhook/request/admissionreview.go` and `webhook/errors`). Pure.

use std::collections::BTreeMap;

use api::status::ApiError;
use base64::Engine as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Invocation;
use crate::admission::Attributes;
use crate::admission::expressions::admission_request;

/// A question to a webhook.
pub(super) struct Review {
    /// What is sent.
    pub body: Value,
    pub uid: String,
    /// Whether the answer's version and uid count: they did not in v1beta1.
    strict: bool,
}

/// What a webhook answered.
#[derive(Debug, Default)]
pub(super) struct Reviewed {
    /// Whether the request passes.
    pub allowed: bool,
    /// Why it does not.
    pub result: Option<Status>,
    /// What is to be told to the client.
    pub warnings: Vec<String>,
    /// What is to be told to the audit log.
    pub annotations: BTreeMap<String, String>,
    /// The patch; empty for none.
    pub patch: Vec<u8>,
    /// Its type.
    pub patch_type: String,
}

/// Asks about a request, in the first form of the review that `versions` names.
///
/// # Errors
/// When it names none that is known.
pub(super) fn ask(
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    versions: &[String],
) -> Result<Review, String> {
    let known = versions.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let version =
        known.ok_or("webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned())?;
    let uid = uuid::Uuid::new_v4().to_string();
    let body = json!({
        "kind": "AdmissionReview",
        "apiVersion": format!("admission.k8s.io/{version}"),
        "request": request(attributes, invocation, &uid),
    });
    Ok(Review { body, uid, strict: version == "v1" })
}

fn request(attributes: &Attributes<'_>, invocation: &Invocation, uid: &str) -> Value {
    let mut request = admission_request(attributes, &invocation.matched);
    request["uid"] = uid.into();
    request["object"] = invocation.object.clone();
    request["oldObject"] = invocation.old.clone();
    request
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    #[serde(default, rename = "status")]
    result: Option<Status>,
    #[serde(default)]
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    audit_annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

impl Review {
    /// The verdict of an answer. `mutating`: it may come with a patch.
    ///
    /// # Errors
    /// Why the answer is not believed.
    pub fn accept(&self, answer: Value, mutating: bool) -> Result<Reviewed, String> {
        let answer: Answer = serde_json::from_value(answer).map_err(|error| error.to_string())?;
        let response = answer.response.ok_or("webhook response was absent")?;
        if self.strict && response.uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {:?}", self.uid, response.uid));
        }
        if self.strict && (answer.kind != "AdmissionReview" || answer.api_version != "admission.k8s.io/v1") {
            let (group, version) = answer.api_version.split_once('/').unwrap_or(("", &answer.api_version));
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, \
                 Kind={}",
                answer.kind
            ));
        }
        let patch = base64::engine::general_purpose::STANDARD.decode(response.patch.unwrap_or_default());
        let patch = patch.map_err(|error| format!("illegal base64 data: {error}"))?;
        let (patch, patch_type) = match (self.strict, mutating) {
            (true, true) => self.checked_patch(patch, response.patch_type)?,
            (true, false) if !patch.is_empty() => {
                return Err("validating webhook may not return response.patch".to_owned());
            }
            (true, false) if response.patch_type.is_some() => {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            (false, true) if !patch.is_empty() => (patch, JSON_PATCH.to_owned()),
            _ => (Vec::new(), String::new()),
        };
        Ok(Reviewed {
            allowed: response.allowed,
            result: response.result,
            warnings: response.warnings.unwrap_or_default(),
            annotations: response.audit_annotations.unwrap_or_default(),
            patch,
            patch_type,
        })
    }

    /// A patch and its type come together.
    fn checked_patch(&self, patch: Vec<u8>, patch_type: Option<String>) -> Result<(Vec<u8>, String), String> {
        match patch_type {
            None if !patch.is_empty() => {
                Err("webhook returned response.patch but not response.patchType".to_owned())
            }
            Some(_) if patch.is_empty() => {
                Err("webhook returned response.patchType but not response.patch".to_owned())
            }
            Some(text) if text.is_empty() => {
                Err("webhook returned invalid response.patchType of \"\"".to_owned())
            }
            other => Ok((patch, other.unwrap_or_default())),
        }
    }
}

/// The only type of patch there is.
pub(super) const JSON_PATCH: &str = "JSONPatch";

/// The error of a request that a webhook refused (upstream `ToStatusErr`).
pub(super) fn denied(webhook: &str, result: Option<Status>) -> ApiError {
    let mut status = result.unwrap_or_default();
    if status.code.is_none_or(|code| code < 400) {
        status.code = Some(400);
    }
    if matches!(status.status.as_deref(), None | Some("" | "Success")) {
        status.status = Some("Failure".to_owned());
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let by = format!("admission webhook {webhook:?} denied the request");
    status.message = Some(match given(&status.message).or_else(|| given(&status.reason)) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    });
    ApiError { status: Box::new(status) }
}
