//! `binding`: a pod gets its node (upstream `BindingREST`).

use api::field::{self, Path};
use api::names::{GroupResource, GroupVersionKind};
use api::status::ApiError;
use http::{Request, Response};
use serde_json::{Value, json};

use super::done;
use crate::admission::Operation;
use crate::body::Body;
use crate::handlers::create::read;
use crate::object::{self, meta_text};
use crate::registry::Resource;
use crate::registry::storage::{Change, Current, Next};
use crate::registry::write::Write;
use crate::server::Context;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Binding")
}

/// Binds a pod: `POST pods/NAME/binding`, or `POST bindings` with the name in the body.
pub async fn create(
    cx: &Context,
    pods: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let (mut binding, options) = read(cx, request, &kind(), "CreateOptions").await?;
    let name = if cx.info.name.is_empty() { meta_text(&binding, "name") } else { &cx.info.name }.to_owned();
    if meta_text(&binding, "name") != name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object".to_string()));
    }
    let mut write = Write { options, kind: kind(), ..Write::new(cx, pods) };
    crate::registry::write::match_namespace(write.namespace, true, &mut binding)?;
    write.subresource = "binding";
    write.admit(Operation::Create, &name, &mut binding, None).await?;
    validate(&binding)?;
    write.admission_validate(Operation::Create, &name, &binding, None).await?;
    let mut change = Bind { name: &name, binding: &binding };
    write.storage().update(write.namespace, &name, &mut change).await?;
    done(cx, accepted)
}

fn validate(binding: &Value) -> Result<(), ApiError> {
    let target = Path::new("target");
    let text = |field: &str| binding["target"][field].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(text("kind"), "" | "Node") {
        errors.push(field::Error::not_supported(&target.child("kind"), text("kind"), &["Node", "<empty>"]));
    }
    if text("name").is_empty() {
        errors.push(field::Error::required(&target.child("name"), ""));
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => Ok(()),
        // As upstream, which answers with the bare errors here.
        [one] => Err(ApiError::new(500, "", one.as_str())),
        many => Err(ApiError::new(500, "", format!("[{}]", many.join(", ")))),
    }
}

struct Bind<'a> {
    name: &'a str,
    binding: &'a Value,
}

impl Bind<'_> {
    fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(&GroupResource::new("", "pods/binding"), self.name, why)
    }

    fn check(&self, pod: &Value) -> Result<(), ApiError> {
        let name = self.name;
        for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (asked, found) = (meta_text(self.binding, field), meta_text(pod, field));
            if !asked.is_empty() && asked != found {
                let why = format!(
                    "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}"
                );
                return Err(ApiError::conflict(&GroupResource::new("", "pods"), name, &why));
            }
        }
        if object::is_being_deleted(pod) {
            return Err(self.conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !node.is_empty() {
            return Err(self.conflict(&format!("pod {name} is already assigned to node {node:?}")));
        }
        if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(self.conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Change for Bind<'_> {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        let Some(current) = current else {
            return Err(ApiError::not_found(&GroupResource::new("", "pods"), self.name));
        };
        self.check(&current.value)?;
        let mut pod = current.value.clone();
        pod["spec"]["nodeName"] = self.binding["target"]["name"].clone();
        for map in ["annotations", "labels"] {
            let more = object::meta(self.binding, map).and_then(Value::as_object);
            for (key, value) in more.into_iter().flatten() {
                pod["metadata"][map][key] = value.clone();
            }
        }
        scheduled(&mut pod);
        Ok(Next::Put(pod))
    }
}

/// Sets the condition `PodScheduled`; what node it might have got is of interest no more.
fn scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": object::now(),
    });
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let status = &mut pod["status"];
    if let Some(fields) = status.as_object_mut() {
        fields.remove("nominatedNodeName");
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(known) if known["status"] == "True" => {}
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_pod_is_scheduled_and_nominated_no_more() {
        let mut pod = json!({"status": {"phase": "Pending", "nominatedNodeName": "n"}});
        scheduled(&mut pod);
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        assert_eq!(pod["status"].get("nominatedNodeName"), None);
        assert_eq!(pod["status"]["phase"], "Pending");
    }
}
