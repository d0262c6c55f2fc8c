//! A request as expressions see it: `request`, `namespaceObject`, `authorizer` (upstream `plugin/cel/condition.go`).

use std::sync::Arc;

use api::cel::admission::Input;
use api::cel::library::authorizer::{Authorized, Authorizer as Ask, Check, Question, Resource, Target};
use api::names::{GroupVersionKind, GroupVersionResource};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Map, Value, json};

use super::Attributes;
use super::matching::{Matched, operation};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User, service_account_groups};
use crate::authz::{Authorizer, Decision};
use crate::request::RequestInfo;

/// What expressions can know of a request besides its objects.
pub(crate) struct Facts {
    request: Value,
    any: Check,
    own: Check,
}

impl Facts {
    /// Of a request that matches as `matched`.
    pub fn new(attributes: &Attributes<'_>, matched: &Matched, authorizer: &Arc<dyn Authorizer>) -> Self {
        let asker = Asker { user: attributes.user.clone(), authorizer: Arc::clone(authorizer) };
        let asker: Arc<dyn Ask> = Arc::new(asker);
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
            any: Check::new(Arc::clone(&asker)),
            own: Check::of_resource(asker, own),
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
}

impl Ask for Asker {
    fn authorize(&self, question: &Question) -> Authorized {
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
        let decision = match &question.service_account {
            None => self.authorizer.authorize(&self.user, &request),
            Some((namespace, name)) => {
                let name = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
                let user = User { name, groups: service_account_groups(namespace), ..User::default() };
                self.authorizer.authorize(&user, &request)
            }
        };
        let allowed = matches!(decision, Decision::Allow { .. });
        Authorized { allowed, reason: decision.reason().to_owned(), error: None }
    }
}
