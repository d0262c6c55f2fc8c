//! Access reviews: may somebody do something (upstream `registry/authorization`).

use api::codec::ordered::{self, Ordered};
use api::field;
use api::names::GroupVersionKind;
use api::status::ApiError;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, LocalSubjectAccessReview, NonResourceAttributes,
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Authorizer, Decision};
use crate::authn::User;
use crate::request::RequestInfo;

const GROUP: &str = "authorization.k8s.io";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Answers a SubjectAccessReview.
pub async fn subject_access_review(
    mut review: SubjectAccessReview,
    authorizer: &dyn Authorizer,
) -> Result<SubjectAccessReview, ApiError> {
    let mut errors = validate_spec(&review.spec);
    if !is_empty(&review.metadata, false) {
        errors.push(not_empty(&review.metadata, "must be empty"));
    }
    fail(&errors)?;
    review.status = Some(decide(&review.spec, authorizer).await);
    Ok(review)
}

/// Reviews have no metadata.
fn not_empty(meta: &ObjectMeta, why: &str) -> field::Error {
    let (value, ty) = (json!(meta), api::schema::type_named(OBJECT_META));
    let mut shown = Vec::new();
    ordered::write(&mut shown, &Ordered { value: &value, ty });
    field::Error::invalid_shown(&field::Path::new("metadata"), String::from_utf8_lossy(&shown), why)
}

/// Answers a LocalSubjectAccessReview. `namespace`: of the URL.
pub async fn local_subject_access_review(
    mut review: LocalSubjectAccessReview,
    namespace: &str,
    authorizer: &dyn Authorizer,
) -> Result<LocalSubjectAccessReview, ApiError> {
    let mut errors = validate_spec(&review.spec);
    if !is_empty(&review.metadata, true) {
        errors.push(not_empty(&review.metadata, "must be empty except for namespace"));
    }
    let own = review.metadata.namespace.clone().unwrap_or_default();
    if let Some(attributes) = &review.spec.resource_attributes {
        let given = attributes.namespace.as_deref().unwrap_or_default();
        if given != own {
            let path = field::Path::new("spec.resourceAttributes.namespace");
            errors.push(field::Error::invalid(&path, given, "must match metadata.namespace"));
        }
    }
    if let Some(attributes) = &review.spec.non_resource_attributes {
        let path = field::Path::new("spec.nonResourceAttributes");
        errors.push(field::Error::invalid(
            &path,
            shown_url(attributes),
            "disallowed on this kind of request",
        ));
    }
    fail(&errors)?;
    if own != namespace {
        return Err(ApiError::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {namespace}"
        )));
    }
    review.status = Some(decide(&review.spec, authorizer).await);
    Ok(review)
}

/// Answers a SelfSubjectAccessReview for `user`.
pub async fn self_subject_access_review(
    mut review: SelfSubjectAccessReview,
    user: &User,
    authorizer: &dyn Authorizer,
) -> Result<SelfSubjectAccessReview, ApiError> {
    let spec = &review.spec;
    let mut errors =
        validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    errors.extend(validate_selectors(spec.resource_attributes.as_ref()));
    if !is_empty(&review.metadata, false) {
        errors.push(not_empty(&review.metadata, "must be empty"));
    }
    fail(&errors)?;
    let request = attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let error = selector_errors(spec.resource_attributes.as_ref());
    review.status = Some(status(authorizer.decide(user, &request).get().await, error));
    Ok(review)
}

/// Answers a SelfSubjectRulesReview for `user`.
pub fn self_subject_rules_review(
    review: &SelfSubjectRulesReview,
    user: &User,
    authorizer: &dyn Authorizer,
) -> Result<SelfSubjectRulesReview, ApiError> {
    let namespace = review.spec.namespace.as_deref().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules(user, namespace);
    let evaluation_error = match rules.errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    };
    let status = SubjectRulesReviewStatus {
        resource_rules: rules.resource,
        non_resource_rules: rules.non_resource,
        incomplete: rules.incomplete,
        evaluation_error,
    };
    Ok(SelfSubjectRulesReview { status: Some(status), ..SelfSubjectRulesReview::default() })
}

/// As upstream's: reviews are refused without naming their kind.
fn fail(errors: &[field::Error]) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&GroupVersionKind::new(GROUP, "v1", ""), "", errors))
}

/// Whether nobody has written anything into the metadata (managed fields do not count).
fn is_empty(meta: &ObjectMeta, namespace_allowed: bool) -> bool {
    let mut meta = ObjectMeta { managed_fields: None, ..meta.clone() };
    if namespace_allowed {
        meta.namespace = None;
    }
    meta == ObjectMeta::default()
}

fn validate_spec(spec: &SubjectAccessReviewSpec) -> field::ErrorList {
    let mut errors =
        validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let user = spec.user.as_deref().unwrap_or_default();
    if user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let path = field::Path::new("spec").child("user");
        errors.push(field::Error::invalid(&path, user, "at least one of user or group must be specified"));
    }
    errors.extend(validate_selectors(spec.resource_attributes.as_ref()));
    errors
}

fn shown_url(attributes: &NonResourceAttributes) -> Value {
    json!({"Path": attributes.path.clone().unwrap_or_default(), "Verb": attributes.verb.clone().unwrap_or_default()})
}

fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    non_resource: Option<&NonResourceAttributes>,
) -> field::ErrorList {
    let spec = field::Path::new("spec");
    match (resource, non_resource) {
        (Some(_), Some(url)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            vec![field::Error::invalid(&spec.child("nonResourceAttributes"), shown_url(url), why)]
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![field::Error::invalid(&spec.child("resourceAttributes"), Value::Null, why)]
        }
        _ => Vec::new(),
    }
}

fn validate_selectors(attributes: Option<&ResourceAttributes>) -> field::ErrorList {
    let mut errors = Vec::new();
    let Some(attributes) = attributes else { return errors };
    let base = field::Path::new("spec.resourceAttributes");
    let mut check = |path: field::Path, raw: Option<&str>, count: usize| {
        let raw = raw.unwrap_or_default();
        if !raw.is_empty() && count > 0 {
            let why = "may not specified at the same time as requirements";
            errors.push(field::Error::invalid(&path.child("rawSelector"), raw, why));
        }
        if raw.is_empty() && count == 0 {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(field::Error::required(&path.child("requirements"), why));
        }
    };
    if let Some(FieldSelectorAttributes { raw_selector, requirements }) = &attributes.field_selector {
        let count = requirements.as_ref().map_or(0, Vec::len);
        check(base.child("fieldSelector"), raw_selector.as_deref(), count);
    }
    if let Some(LabelSelectorAttributes { raw_selector, requirements }) = &attributes.label_selector {
        let count = requirements.as_ref().map_or(0, Vec::len);
        check(base.child("labelSelector"), raw_selector.as_deref(), count);
    }
    errors
}

/// The request a review asks about.
fn attributes(resource: Option<&ResourceAttributes>, url: Option<&NonResourceAttributes>) -> RequestInfo {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some(resource) = resource {
        let version = text(&resource.version);
        return RequestInfo {
            is_resource: true,
            verb: text(&resource.verb),
            group: text(&resource.group),
            version: if version.is_empty() { "*".to_owned() } else { version },
            namespace: text(&resource.namespace),
            resource: text(&resource.resource),
            subresource: text(&resource.subresource),
            name: text(&resource.name),
            field_selector: resource.field_selector.as_ref().map(field_selector).unwrap_or_default(),
            label_selector: resource
                .label_selector
                .as_ref()
                .map(|s| text(&s.raw_selector))
                .unwrap_or_default(),
            ..RequestInfo::default()
        };
    }
    let (path, verb) = url.map(|url| (text(&url.path), text(&url.verb))).unwrap_or_default();
    RequestInfo { path, verb, ..RequestInfo::default() }
}

/// A field selector as a query would write it. Requirements that cannot be written are left out: the review then is
/// about more, never about less.
fn field_selector(selector: &FieldSelectorAttributes) -> String {
    let requirements = selector.requirements.as_deref().unwrap_or_default();
    if requirements.is_empty() {
        return selector.raw_selector.clone().unwrap_or_default();
    }
    let terms = requirements.iter().filter_map(|requirement| {
        let [value] = requirement.values.as_deref()? else { return None };
        match requirement.operator.as_str() {
            "In" => Some(format!("{}={value}", requirement.key)),
            "NotIn" => Some(format!("{}!={value}", requirement.key)),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

async fn decide(spec: &SubjectAccessReviewSpec, authorizer: &dyn Authorizer) -> SubjectAccessReviewStatus {
    let user = User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    let request = attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let decision = authorizer.decide(&user, &request).get().await;
    status(decision, selector_errors(spec.resource_attributes.as_ref()))
}

/// Which selectors could not be read, wholly or in part; they were left out of the question.
fn selector_errors(attributes: Option<&ResourceAttributes>) -> Option<String> {
    let attributes = attributes?;
    let mut errors = Vec::new();
    let mut note = |name: &str, readable: usize, all: usize| {
        if readable < all {
            let partially = if readable > 0 { "partially " } else { "" };
            errors.push(format!("spec.resourceAttributes.{name} {partially}ignored due to parse error"));
        }
    };
    if let Some(requirements) = attributes.field_selector.as_ref().and_then(|s| s.requirements.as_ref()) {
        let readable = requirements.iter().filter(|requirement| {
            let one = requirement.values.as_ref().is_some_and(|values| values.len() == 1);
            one && matches!(requirement.operator.as_str(), "In" | "NotIn")
        });
        note("fieldSelector", readable.count(), requirements.len());
    }
    if let Some(requirements) = attributes.label_selector.as_ref().and_then(|s| s.requirements.as_ref()) {
        let readable = requirements.iter().filter(|requirement| {
            let count = requirement.values.as_ref().map_or(0, Vec::len);
            match requirement.operator.as_str() {
                "In" | "NotIn" => count > 0,
                "Exists" | "DoesNotExist" => count == 0,
                _ => false,
            }
        });
        note("labelSelector", readable.count(), requirements.len());
    }
    (!errors.is_empty()).then(|| errors.join("; "))
}

fn status(decision: Decision, evaluation_error: Option<String>) -> SubjectAccessReviewStatus {
    let (allowed, denied, reason, failure) = match decision {
        Decision::Allow { reason } => (true, None, reason, None),
        Decision::Deny { reason } => (false, Some(true), reason, None),
        Decision::NoOpinion { reason } => (false, None, reason, None),
        Decision::Failed { denies, error } => (false, denies.then_some(true), String::new(), Some(error)),
    };
    let errors: Vec<String> = failure.into_iter().chain(evaluation_error).collect();
    let evaluation_error = Some(errors.join("; ")).filter(|errors| !errors.is_empty());
    let reason = Some(reason).filter(|reason| !reason.is_empty());
    SubjectAccessReviewStatus { allowed, denied, reason, evaluation_error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{AlwaysAllow, Superusers};

    #[tokio::test]
    async fn a_review_asks_about_one_thing() {
        let review = SubjectAccessReview::default();
        let error = subject_access_review(review, &AlwaysAllow).await.expect_err("empty");
        assert_eq!(error.code(), 422);
        let causes = error.status.details.and_then(|details| details.causes).unwrap_or_default();
        let fields: Vec<_> = causes.iter().filter_map(|cause| cause.field.as_deref()).collect();
        assert_eq!(fields, ["spec.resourceAttributes", "spec.user"]);
    }

    #[tokio::test]
    async fn reviews_are_answered_for_the_named_user() {
        let mut review = SubjectAccessReview::default();
        review.spec.resource_attributes = Some(ResourceAttributes::default());
        for (groups, allowed) in [(vec!["system:masters".to_owned()], true), (vec!["dev".to_owned()], false)]
        {
            review.spec.groups = Some(groups);
            let answer = subject_access_review(review.clone(), &Superusers).await.expect("valid");
            assert_eq!(answer.status.expect("status").allowed, allowed);
        }
    }

    #[test]
    fn rules_need_a_namespace() {
        let mut review = SelfSubjectRulesReview::default();
        let user = User::anonymous();
        assert_eq!(self_subject_rules_review(&review, &user, &AlwaysAllow).expect_err("none").code(), 400);
        review.spec.namespace = Some("ns".into());
        let status =
            self_subject_rules_review(&review, &user, &AlwaysAllow).expect("answer").status.expect("status");
        assert_eq!(status.resource_rules[0].verbs, ["*"]);
    }
}
