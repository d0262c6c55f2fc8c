//! `serviceaccounts/NAME/token`: a token for a service account.

use api::names::GroupVersionKind;
use api::status::ApiError;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::TokenRequest;

use super::value;
use crate::admission::Operation;
use crate::body::Body;
use crate::codec;
use crate::handlers::create::read;
use crate::negotiate::{self, Restrictions};
use crate::object;
use crate::registry::Resource;
use crate::registry::managed_fields;
use crate::registry::write::Write;
use crate::server::Context;

/// Makes a token.
pub async fn create(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = negotiate::accept(&cx.headers, &cx.query, Restrictions::OBJECTS)?;
    let kind = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
    let (mut body, options) = read(cx, request, &kind, "CreateOptions").await?;
    managed_fields::record(cx, &managed_fields::versions_of(&kind), &kind, "token", &mut body, None).await;
    let write = Write { options, kind: kind.clone(), ..Write::new(cx, resource) };
    write.admit(Operation::Create, &cx.info.name, &mut body, None).await?;
    write.admission_validate(Operation::Create, &cx.info.name, &body, None).await?;
    let asked: TokenRequest =
        serde_json::from_value(body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let Some(issuer) = cx.server.security().and_then(|security| security.issuer.as_ref()) else {
        return Err(ApiError::no_such_resource());
    };
    let mut warnings = Vec::new();
    let made = issuer.create(&cx.info.namespace, &cx.info.name, asked, &mut warnings).await?;
    warnings.into_iter().for_each(|warning| cx.warn(warning));
    let mut made = serde_json::to_value(made).map_err(ApiError::internal)?;
    object::set_kind(&mut made, &kind);
    let made = codec::decode_value(made, &kind)?.value;
    value(cx, accepted, StatusCode::CREATED, &made)
}
