//! Resources that are answered and never stored: reviews, and bindings at the level of the namespace.

use api::status::ApiError;
use http::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::create::read;
use super::subresources;
use crate::admission::Operation;
use crate::authn::reviews as authn;
use crate::authz::reviews as authz;
use crate::body::Body;
use crate::codec;
use crate::negotiate::{self, Accepted, Restrictions};
use crate::object::{self, meta_text};
use crate::registry::Resource;
use crate::registry::managed_fields;
use crate::registry::write::{Write, match_namespace};
use crate::server::{Context, response};

/// Answers the creation of such an object.
pub async fn create(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    if resource.gvr.resource == "bindings" {
        let pods = cx.server.registry.find("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
        return subresources::create_binding(cx, &pods, request).await;
    }
    let accepted = negotiate::accept(&cx.headers, &cx.query, Restrictions::OBJECTS)?;
    let (mut body, options) = read(cx, request, &resource.gvk, "CreateOptions").await?;
    let versions = managed_fields::versions_of(&resource.gvk);
    managed_fields::record(cx, &versions, &resource.gvk, "", &mut body, None).await;
    let Some(security) = cx.server.security() else {
        return Err(ApiError::unavailable("the server is still starting"));
    };
    let authorizer = security.authorizer.as_ref();
    let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
    match_namespace(namespace, resource.namespaced, &mut body)?;
    let write = Write { options, ..Write::new(cx, resource) };
    let name = meta_text(&body, "name").to_owned();
    write.admit(Operation::Create, &name, &mut body, None).await?;
    write.admission_validate(Operation::Create, &name, &body, None).await?;
    let mut answer = match &*resource.gvk.kind {
        "TokenReview" => {
            encode(authn::token_review(decode(body)?, &security.tokens, &security.audiences).await?)?
        }
        "SelfSubjectReview" => encode(authn::self_subject_review(decode(body)?, &cx.user))?,
        "SubjectAccessReview" => encode(authz::subject_access_review(decode(body)?, authorizer).await?)?,
        "LocalSubjectAccessReview" => {
            encode(authz::local_subject_access_review(decode(body)?, namespace, authorizer).await?)?
        }
        "SelfSubjectAccessReview" => {
            encode(authz::self_subject_access_review(decode(body)?, &cx.user, authorizer).await?)?
        }
        "SelfSubjectRulesReview" => {
            encode(authz::self_subject_rules_review(&decode(body)?, &cx.user, authorizer)?)?
        }
        _ => return Err(ApiError::no_such_resource()),
    };
    object::set_kind(&mut answer, &resource.gvk);
    let answer = codec::decode_value(answer, &resource.gvk)?.value;
    let accepted = Accepted { transform: None, ..accepted };
    response::object(StatusCode::CREATED, accepted, &answer, &cx.headers)
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn encode(value: impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(ApiError::internal)
}
