//! What is written down of a request at one stage (upstream `audit.k8s.io/v1` Event).

use std::collections::BTreeMap;

use api::codec::ordered::{self, Ordered};
use api::names::GroupVersion;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::policy::{Level, Stage};
use crate::authn::User;

/// An event. The order of its fields is that of upstream's.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    /// How much there is in it.
    pub level: Level,
    /// The same for all events of a request; the client may choose it.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// When in the life of the request it was written.
    pub stage: Stage,
    /// Path and query as sent.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// The verb.
    pub verb: String,
    /// Who asks.
    pub user: UserInfo,
    /// Whom they act as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    /// Where the request came from, the last proxy at the end.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The object the request is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    /// How it was answered; a whole Status for errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    /// The body of the request, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Box<RawValue>>,
    /// The body of the answer, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Box<RawValue>>,
    /// When the request came in.
    pub request_received_timestamp: String,
    /// When this event was written.
    pub stage_timestamp: String,
    /// What authorizers and admission plugins have to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A user, as events show them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UserInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&User> for UserInfo {
    fn from(user: &User) -> Self {
        let User { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

/// Which object a request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its uid, as far as the request says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The group of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The version of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Its version, as far as the request says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// The part of it that is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

impl ObjectRef {
    /// Fills in what the request line did not say from the metadata of its body.
    pub fn complete(&mut self, body: &Value) {
        let meta = &body["metadata"];
        for (field, name) in [
            (&mut self.namespace, "namespace"),
            (&mut self.name, "name"),
            (&mut self.uid, "uid"),
            (&mut self.resource_version, "resourceVersion"),
        ] {
            if field.is_empty() {
                meta[name].as_str().unwrap_or_default().clone_into(field);
            }
        }
    }
}

impl Event {
    /// An event of a request that has just come in.
    #[must_use]
    pub fn new(level: Level, audit_id: String, received: String) -> Self {
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb: String::new(),
            user: UserInfo::default(),
            impersonated_user: None,
            source_ips: vec![],
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            stage_timestamp: received.clone(),
            request_received_timestamp: received,
            annotations: BTreeMap::new(),
        }
    }

    /// Notes how the request was answered: the code, and what an error says.
    pub fn answered(&mut self, code: u16, error: Option<&Status>) {
        let mut status = match error {
            Some(error) => serde_json::to_value(error).unwrap_or_default(),
            None => json!({}),
        };
        if let Some(map) = status.as_object_mut() {
            for typed in ["kind", "apiVersion"] {
                map.remove(typed);
            }
            map.entry("metadata").or_insert_with(|| json!({}));
            map.insert("code".to_owned(), code.into());
        }
        self.response_status = Some(status);
    }

    /// The event as one line of JSON.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(1024);
        ordered::write(&mut line, self);
        line.push(b'\n');
        line
    }
}

/// An object as it is written down: as upstream's encoder writes it.
#[must_use]
pub fn raw(object: &Value) -> Option<Box<RawValue>> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let version = GroupVersion::parse(text("apiVersion"));
    let ty = version.and_then(|version| api::schema::type_for(&version.with_kind(text("kind").to_owned())));
    let mut text = Vec::new();
    ordered::write(&mut text, &Ordered { value: object, ty });
    String::from_utf8(text).ok().and_then(|text| RawValue::from_string(text).ok())
}

/// An object without the managers of its fields; of a list, without those of its items.
pub fn forget_managers(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    let mut each = |list: &str, forget: fn(&mut Value)| {
        object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(forget);
    };
    each("items", forget_managers);
    each("rows", |row| row.get_mut("object").into_iter().for_each(forget_managers));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_in_upstreams_order() {
        let mut event = Event::new(Level::Metadata, "id".into(), "2026-01-02T03:04:05.000006Z".into());
        event.stage = Stage::ResponseComplete;
        event.request_uri = "/api/v1/namespaces/default/pods/a?x=<1>".into();
        event.verb = "get".into();
        let user = User { name: "alice".into(), groups: vec!["dev".into()], ..User::default() };
        event.user = (&user).into();
        event.source_ips = vec!["192.0.2.1".into()];
        event.user_agent = "kubectl/v1".into();
        let mut object =
            ObjectRef { resource: "pods".into(), api_version: "v1".into(), ..ObjectRef::default() };
        object.complete(&json!({"metadata": {"namespace": "default", "name": "a", "resourceVersion": "7"}}));
        event.object_ref = Some(object);
        event.answered(200, None);
        event.annotations.insert("authorization.k8s.io/decision".into(), "allow".into());
        let expected = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods/a?x=\u003c1\u003e","verb":"get","user":{"username":"alice","groups":["dev"]},"sourceIPs":["192.0.2.1"],"userAgent":"kubectl/v1","objectRef":{"resource":"pods","namespace":"default","name":"a","apiVersion":"v1","resourceVersion":"7"},"responseStatus":{"code":200,"metadata":{}},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000006Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;
        let line = String::from_utf8(event.line()).expect("text");
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn an_error_is_shown_whole() {
        let mut event = Event::new(Level::Metadata, String::new(), String::new());
        let error = api::status::ApiError::bad_request("no");
        event.answered(400, Some(&error.status));
        let status = event.response_status.expect("a status");
        assert_eq!((&status["message"], &status["code"]), (&json!("no"), &json!(400)));
        assert!(status.get("kind").is_none());
    }

    #[test]
    fn managers_are_forgotten_in_lists_and_tables() {
        let object = json!({"metadata": {"name": "a", "managedFields": [{}]}});
        let wanted = json!({"metadata": {"name": "a"}});
        let mut one = object.clone();
        forget_managers(&mut one);
        assert_eq!(one, wanted);
        let mut list = json!({"metadata": {}, "items": [object]});
        forget_managers(&mut list);
        assert_eq!(list["items"][0], wanted);
        let mut table = json!({"rows": [{"cells": [], "object": object}]});
        forget_managers(&mut table);
        assert_eq!(table["rows"][0]["object"], wanted);
    }
}
