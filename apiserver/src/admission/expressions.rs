//! A request as expressions see it: `request`, `namespaceObject`, `authorizer` (upstream `plugin/cel/condition.go`).

use std::borrow::Cow;
use std::sync::Arc;

use api::cel::admission::Input;
use api::cel::library::authorizer::{Authorized, Authorizer as Ask, Check, Question, Resource, Target};
use api::names::{GroupVersionKind, GroupVersionResource};
use k8s_openapi::api::core::v1::Namespace;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::Attributes;
use super::matching::{Matched, operation};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User, service_account_groups};
use crate::authz::{Answer, Authorizer, Decision};
use crate::request::RequestInfo;

/// What expressions can know of a request besides its objects.
pub(crate) struct Facts {
    request: Value,
    asker: Arc<Asker>,
    any: Check,
    own: Check,
}

impl Facts {
    /// Of a request that matches as `matched`.
    pub fn new(attributes: &Attributes<'_>, matched: &Matched, authorizer: &Arc<dyn Authorizer>) -> Self {
        let (user, authorizer) = (attributes.user.clone(), Arc::clone(authorizer));
        let asker = Arc::new(Asker { user, authorizer, heard: Mutex::default() });
        let ask: Arc<dyn Ask> = Arc::clone(&asker) as _;
        let own = Resource {
            group: attributes.resource.group.to_string(),
            resource: attributes.resource.resource.to_string(),
            subresource: attributes.subresource.to_owned(),
            namespace: attributes.namespace.to_owned(),
            name: attributes.name.to_owned(),
            ..Resource::default()
        };
        Self {
            request: admission_request(attributes, matched),
            asker,
            any: Check::new(Arc::clone(&ask)),
            own: Check::of_resource(ask, own),
        }
    }

    /// Evaluates expressions, which cannot wait for a webhook that decides what is permitted: where one must be asked,
    /// it is, and all is evaluated anew with its answer. Each answer is kept for this request; there are few, since
    /// such a question costs an expression a third of what it may.
    pub async fn settle<T>(&self, evaluate: impl Fn() -> T) -> T {
        loop {
            let question = {
                let outcome = evaluate();
                match self.asker.take_open() {
                    None => return outcome,
                    Some(question) => question,
                }
            };
            self.asker.find_out(question).await;
        }
    }

    /// All that expressions look at; null stands for what is not there.
    pub fn input<'a>(
        &'a self,
        object: &'a Value,
        old_object: &'a Value,
        params: &'a Value,
        namespace: &'a Value,
    ) -> Input<'a> {
        let authorizer = Some((&self.any, &self.own));
        Input { object, old_object, params, request: &self.request, namespace, authorizer }
    }
}

/// The request in the form of an AdmissionRequest, without its objects. What is empty there is absent.
pub(super) fn admission_request(attributes: &Attributes<'_>, matched: &Matched) -> Value {
    let kind = |gvk: &GroupVersionKind| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let resource = |gvr: &GroupVersionResource| json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource});
    let mut request = json!({
        "uid": "",
        "kind": kind(&matched.kind),
        "resource": resource(&matched.resource),
        "requestKind": kind(attributes.kind),
        "requestResource": resource(attributes.resource),
        "operation": operation(attributes.operation),
        "userInfo": user_info(attributes.user),
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    let texts = [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name),
        ("namespace", attributes.namespace),
    ];
    for (field, text) in texts {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    request
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    let mut add = |field: &str, value: Value, empty: bool| {
        if !empty {
            info.insert(field.to_owned(), value);
        }
    };
    add("username", json!(user.name), user.name.is_empty());
    add("uid", json!(user.uid), user.uid.is_empty());
    add("groups", json!(user.groups), user.groups.is_empty());
    add("extra", json!(user.extra), user.extra.is_empty());
    Value::Object(info)
}

/// A namespace as expressions see it: not all of its metadata (upstream `CreateNamespaceObject`).
pub(crate) fn namespace_object(namespace: Option<&Namespace>) -> Value {
    let mut object = serde_json::to_value(namespace).unwrap_or_default();
    if let Some(object) = object.as_object_mut() {
        object.remove("apiVersion");
        object.remove("kind");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for hidden in ["managedFields", "ownerReferences", "selfLink"] {
            metadata.remove(hidden);
        }
    }
    object
}

/// Asks the server's authorizer on behalf of whoever makes a request.
struct Asker {
    user: User,
    authorizer: Arc<dyn Authorizer>,
    heard: Mutex<Heard>,
}

/// What others have answered, and what they are to be asked next.
#[derive(Default)]
struct Heard {
    answers: Vec<(Question, Authorized)>,
    open: Option<Question>,
}

impl Asker {
    fn take_open(&self) -> Option<Question> {
        self.heard.lock().open.take()
    }

    async fn find_out(&self, question: Question) {
        let (user, request) = self.asked(&question);
        let answer = authorized(self.authorizer.decide(&user, &request).get().await);
        self.heard.lock().answers.push((question, answer));
    }

    /// Who wants what.
    fn asked(&self, question: &Question) -> (Cow<'_, User>, RequestInfo) {
        let request = match &question.target {
            Target::Path(path) => {
                RequestInfo { path: path.clone(), verb: question.verb.clone(), ..RequestInfo::default() }
            }
            Target::Resource(resource) => RequestInfo {
                is_resource: true,
                verb: question.verb.clone(),
                group: resource.group.clone(),
                version: "*".to_owned(),
                resource: resource.resource.clone(),
                subresource: resource.subresource.clone(),
                namespace: resource.namespace.clone(),
                name: resource.name.clone(),
                field_selector: resource.field_selector.clone(),
                label_selector: resource.label_selector.clone(),
                ..RequestInfo::default()
            },
        };
        let user = match &question.service_account {
            None => Cow::Borrowed(&self.user),
            Some((namespace, name)) => {
                let name = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
                Cow::Owned(User { name, groups: service_account_groups(namespace), ..User::default() })
            }
        };
        (user, request)
    }
}

impl Ask for Asker {
    fn authorize(&self, question: &Question) -> Authorized {
        let mut heard = self.heard.lock();
        if let Some((_, answer)) = heard.answers.iter().find(|(known, _)| known == question) {
            return answer.clone();
        }
        // What is evaluated now counts no more.
        if heard.open.is_some() {
            return Authorized::default();
        }
        let (user, request) = self.asked(question);
        match self.authorizer.decide(&user, &request) {
            Answer::Now(decision) => authorized(decision),
            Answer::Later(_) => {
                heard.open = Some(question.clone());
                Authorized::default()
            }
        }
    }
}

fn authorized(decision: Decision) -> Authorized {
    match decision {
        Decision::Allow { reason } => Authorized { allowed: true, reason, error: None },
        Decision::Deny { reason } | Decision::NoOpinion { reason } => {
            Authorized { allowed: false, reason, error: None }
        }
        Decision::Failed { error, .. } => {
            Authorized { allowed: false, reason: String::new(), error: Some(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::cel::admission::{BUDGET, Compiled, Compiler, Evaluation, Returns, Scope};
    use tokio::sync::Notify;

    use super::*;
    use crate::admission::Operation;
    use crate::admission::testing::Write;

    /// Decides about pods at once; about the rest when it is let, and keeps what it was asked.
    #[derive(Default)]
    struct Slow {
        go: Notify,
        asked: Mutex<Vec<String>>,
    }

    impl Authorizer for Slow {
        fn authorize(&self, _: &User, _: &RequestInfo) -> Decision {
            panic!("nobody may wait for this")
        }

        fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
            if request.resource == "pods" {
                return Answer::Now(Decision::allow());
            }
            Answer::Later(Box::pin(async move {
                self.go.notified().await;
                self.asked.lock().push(format!("{} {} {}", user.name, request.verb, request.resource));
                match request.resource.as_str() {
                    "secrets" => Decision::Failed { denies: false, error: "broken".to_owned() },
                    "nodes" => Decision::Deny { reason: "no".to_owned() },
                    _ => Decision::Allow { reason: "yes".to_owned() },
                }
            }))
        }
    }

    fn compile(text: &str) -> Compiled {
        let scope = Scope { authorizer: true, ..Scope::default() };
        Compiler::plain().compile(text, Returns::Bool, scope)
    }

    async fn evaluate(slow: &Arc<Slow>, text: &str) -> Result<bool, String> {
        let write = Write::new("", "Pod", "pods");
        let attributes = write.attributes(Operation::Create, "", "p");
        let matched = Matched { resource: write.resource.clone(), kind: write.kind.clone() };
        let authorizer: Arc<dyn Authorizer> = Arc::clone(slow) as _;
        let facts = Facts::new(&attributes, &matched, &authorizer);
        let (compiled, null) = (compile(text), Value::Null);
        facts
            .settle(|| {
                let input = facts.input(&null, &null, &null, &null);
                let outcome = Evaluation::new(input, &[], BUDGET).evaluate(&compiled);
                outcome.expect("within the budget").map(|value| value.as_bool() == Some(true))
            })
            .await
    }

    #[tokio::test]
    async fn expressions_wait_for_whoever_decides() {
        let check = |resource: &str| format!("authorizer.group('').resource('{resource}').check('get')");
        for (text, expected, asked) in [
            (format!("{}.allowed()", check("pods")), Ok(true), vec![]),
            (format!("{}.allowed()", check("maps")), Ok(true), vec!["alice get maps"]),
            (format!("{}.reason() == 'yes'", check("maps")), Ok(true), vec!["alice get maps"]),
            (format!("{}.reason() == 'no'", check("nodes")), Ok(true), vec!["alice get nodes"]),
            // An answer is kept, and what it makes needless is not asked.
            (format!("{0}.allowed() && {0}.allowed()", check("maps")), Ok(true), vec!["alice get maps"]),
            (
                format!("{}.allowed() && {}.allowed()", check("nodes"), check("maps")),
                Ok(false),
                vec!["alice get nodes"],
            ),
            (
                format!("!{}.allowed() && {}.allowed()", check("nodes"), check("maps")),
                Ok(true),
                vec!["alice get nodes", "alice get maps"],
            ),
            (format!("{}.errored()", check("secrets")), Ok(true), vec!["alice get secrets"]),
            (format!("{}.error() == 'broken'", check("secrets")), Ok(true), vec!["alice get secrets"]),
            (
                "authorizer.serviceAccount('a', 'b').group('').resource('maps').check('get').allowed()"
                    .to_owned(),
                Ok(true),
                vec!["system:serviceaccount:a:b get maps"],
            ),
        ] {
            let slow = Arc::new(Slow::default());
            let mut found = std::pin::pin!(evaluate(&slow, &text));
            for _ in &asked {
                // On the one thread of this test: it is not held up meanwhile.
                assert!(futures::poll!(&mut found).is_pending(), "{text}");
                slow.go.notify_one();
            }
            assert_eq!(found.await, expected, "{text}");
            assert_eq!(*slow.asked.lock(), asked, "{text}");
        }
    }
}
