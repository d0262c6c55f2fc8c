//! Conditions under which a webhook is asked: expressions about the review that it would be sent (upstream
//! `apiserver/pkg/authorization/cel`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::cel::admission::{CALL_LIMIT, type_text};
use api::cel::{Bindings, Declared, Environment, Limits, MAX_REQUEST_BYTES, Program, Type, Value};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReviewSpec};
use serde_json::{Value as Json, json};

/// The variable that holds the spec of the review.
const REQUEST: &str = "request";

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    text: Arc<str>,
    program: Program,
}

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| Environment::kubernetes().with_declared(REQUEST, &Arc::new(request_type())))
}

fn object<const N: usize>(name: &str, fields: [(&str, Declared); N]) -> Declared {
    let fields = fields.into_iter().map(|(name, declared)| (name.to_owned(), Arc::new(declared)));
    Declared::object(name, fields.collect::<BTreeMap<_, _>>())
}

fn request_type() -> Declared {
    let text = || Declared::scalar("string", Type::String, 2, MAX_REQUEST_BYTES);
    let texts = || Declared::list(text(), MAX_REQUEST_BYTES);
    let requirement = || {
        let fields = [("key", text()), ("operator", text()), ("values", texts())];
        object("kubernetes.SelectorRequirement", fields)
    };
    let selector = |name: &str| {
        let requirements = Declared::list(requirement(), MAX_REQUEST_BYTES);
        object(name, [("rawSelector", text()), ("requirements", requirements)])
    };
    let resource = object(
        "kubernetes.ResourceAttributes",
        [
            ("namespace", text()),
            ("verb", text()),
            ("group", text()),
            ("version", text()),
            ("resource", text()),
            ("subresource", text()),
            ("name", text()),
            ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
            ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
        ],
    );
    object(
        "kubernetes.SubjectAccessReviewSpec",
        [
            ("resourceAttributes", resource),
            (
                "nonResourceAttributes",
                object("kubernetes.NonResourceAttributes", [("path", text()), ("verb", text())]),
            ),
            ("user", text()),
            ("groups", texts()),
            ("extra", Declared::map(texts(), MAX_REQUEST_BYTES)),
            ("uid", text()),
        ],
    )
}

impl Condition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let environment = environment();
        let checked = environment.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        let found = checked.output_type();
        if found != Type::Bool {
            let (wanted, found) = (type_text(&Type::Bool), type_text(&found));
            return Err(format!("must evaluate to {wanted} but got {found}"));
        }
        let program = environment.program(&checked);
        let program = program.map_err(|why| format!("program instantiation failed: {why}"))?;
        Ok(Self { text: text.into(), program })
    }

    fn holds(&self, request: &Json) -> Result<bool, String> {
        let variables = Bindings::new().bind(REQUEST, Value::from_json(request));
        let limits = Limits { cost: Some(CALL_LIMIT), interrupted: None };
        let failed = |why: String| format!("cel evaluation error: expression '{}' {why}", self.text);
        let value = self.program.evaluate(&variables, limits).value;
        let value = value.map_err(|why| failed(format!("resulted in error: {why}")))?;
        value.as_bool().ok_or_else(|| failed("eval result type should be bool".to_owned()))
    }
}

/// Whether all conditions hold of a review.
///
/// # Errors
/// When some cannot be evaluated and none of the others fails to hold.
pub fn all_hold(conditions: &[Condition], review: &SubjectAccessReviewSpec) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(true);
    }
    let (request, mut errors) = (shown(review), Vec::new());
    for condition in conditions {
        match condition.holds(&request) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// A review as conditions see it: all texts are there, if only empty.
fn shown(review: &SubjectAccessReviewSpec) -> Json {
    let mut request = json!({
        "user": review.user.clone().unwrap_or_default(),
        "groups": review.groups.clone().unwrap_or_default(),
        "uid": review.uid.clone().unwrap_or_default(),
        "extra": review.extra.clone().unwrap_or_default(),
    });
    if let Some(resource) = &review.resource_attributes {
        request["resourceAttributes"] = shown_resource(resource);
    }
    if let Some(path) = &review.non_resource_attributes {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        request["nonResourceAttributes"] = json!({"path": text(&path.path), "verb": text(&path.verb)});
    }
    request
}

fn shown_resource(resource: &ResourceAttributes) -> Json {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut shown = json!({
        "namespace": text(&resource.namespace),
        "verb": text(&resource.verb),
        "group": text(&resource.group),
        "version": text(&resource.version),
        "resource": text(&resource.resource),
        "subresource": text(&resource.subresource),
        "name": text(&resource.name),
    });
    if let Some(selector) = &resource.field_selector {
        shown["fieldSelector"] = json!(selector);
    }
    if let Some(selector) = &resource.label_selector {
        shown["labelSelector"] = json!(selector);
    }
    shown
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authorization::v1::NonResourceAttributes;

    use super::*;

    fn review() -> SubjectAccessReviewSpec {
        SubjectAccessReviewSpec {
            user: Some("jane".to_owned()),
            groups: Some(vec!["dev".to_owned()]),
            resource_attributes: Some(ResourceAttributes {
                verb: Some("list".to_owned()),
                resource: Some("pods".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        }
    }

    #[test]
    fn conditions_see_the_review() {
        let path = SubjectAccessReviewSpec {
            resource_attributes: None,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/x".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..review()
        };
        for (texts, review, expected) in [
            (vec!["request.user == 'jane'"], review(), Ok(true)),
            (vec!["request.user == 'jane'", "'ops' in request.groups"], review(), Ok(false)),
            (vec!["has(request.resourceAttributes)"], review(), Ok(true)),
            (vec!["has(request.resourceAttributes)"], path.clone(), Ok(false)),
            (vec!["request.resourceAttributes.name == ''"], review(), Ok(true)),
            (vec!["request.nonResourceAttributes.path == '/x'"], path.clone(), Ok(true)),
            (vec!["has(request.resourceAttributes.fieldSelector)"], review(), Ok(false)),
            // What fails to hold counts more than what cannot be evaluated.
            (
                vec!["request.resourceAttributes.verb == 'get'", "request.user != 'jane'"],
                path.clone(),
                Ok(false),
            ),
            (
                vec!["request.resourceAttributes.verb == 'get'"],
                path,
                Err(
                    "cel evaluation error: expression 'request.resourceAttributes.verb == 'get'' resulted in \
                     error: no such key: resourceAttributes",
                ),
            ),
        ] {
            let compiled: Vec<_> =
                texts.iter().map(|text| Condition::compile(text).expect("a condition")).collect();
            let found = all_hold(&compiled, &review);
            assert_eq!(found, expected.map_err(str::to_owned), "{texts:?}");
        }
        let why = Condition::compile("request.user").expect_err("no condition");
        assert_eq!(why, "must evaluate to bool but got string");
        assert!(Condition::compile("request.name").expect_err("no such field").contains("undefined field"));
    }
}
