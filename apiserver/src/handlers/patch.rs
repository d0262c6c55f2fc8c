//! PATCH of an object (upstream `endpoints/handlers/patch.go`).

use api::field;
use api::names::GroupVersionKind;
use api::status::ApiError;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use super::options::{FieldValidation, write_options};
use super::update::answer;
use crate::body::{self, Body};
use crate::codec;
use crate::negotiate;
use crate::object;
use crate::registry::Resource;
use crate::registry::write::{Source, Write};
use crate::server::Context;

/// The kinds of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Merge with knowledge of the type.
    Strategic,
}

const TYPES: [(&str, PatchType); 3] = [
    ("application/json-patch+json", PatchType::Json),
    ("application/merge-patch+json", PatchType::Merge),
    ("application/strategic-merge-patch+json", PatchType::Strategic),
];

/// Patches an object, or the part of it that a subresource stands for.
pub async fn patch(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let (mut patch, options) = read(cx, request, &resource.gvk).await?;
    let write = Write { options, ..Write::new(cx, resource) };
    let updated = write.update(&cx.info.name, &mut patch).await?;
    answer(cx, resource, updated, accepted)
}

/// Reads a patch for objects of a kind, with the options of the request.
pub async fn read<'a>(
    cx: &'a Context,
    request: Request<Body>,
    gvk: &GroupVersionKind,
) -> Result<(Patch<'a>, Value), ApiError> {
    let media = negotiate::media_type_as_sent(&cx.headers);
    let found = TYPES.iter().find(|(name, _)| *name == media);
    let Some((_, kind)) = found else {
        // Refused by upstream's router, in its words.
        let mut error = negotiate::unsupported("415: Unsupported Media Type");
        error.status.details = Some(Default::default());
        return Err(error);
    };
    let bytes = body::read(request.into_body()).await?;
    let (validation, options) = write_options(cx, "PatchOptions")?;
    Ok((Patch { cx, kind: *kind, bytes, gvk: gvk.clone(), validation }, options))
}

/// 422 for a patch whose outcome is no object of its type.
fn unusable(patched: &Value, error: &ApiError) -> ApiError {
    let mut shown = patched.clone();
    object::set_meta(&mut shown, "managedFields", None);
    let why = error.message();
    let why = why
        .split_once(" cannot be handled as a ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(why, |(_, w)| w);
    let invalid = field::Error::invalid(&field::Path::new("patch"), shown.to_string(), why);
    ApiError::invalid(&GroupVersionKind::new("", "", ""), "", &[invalid])
}

/// A patch as the source of a new state.
pub struct Patch<'a> {
    cx: &'a Context,
    kind: PatchType,
    bytes: Bytes,
    gvk: GroupVersionKind,
    validation: FieldValidation,
}

impl Patch<'_> {
    /// The patched object, checked against its type.
    pub fn apply(&self, old: &Value) -> Result<Value, ApiError> {
        if self.cx.query.first("force").is_some() {
            let path = field::Path::new("force");
            let error = field::Error::forbidden(&path, "may not be specified for non-apply patch");
            return Err(ApiError::invalid(
                &GroupVersionKind::new("meta.k8s.io", "v1", "PatchOptions"),
                "",
                &[error],
            ));
        }
        let (patched, mut strict_errors) = codec::patch(self.kind, &self.gvk, old, &self.bytes)?;
        let decoded =
            codec::decode_value(patched.clone(), &self.gvk).map_err(|error| unusable(&patched, &error))?;
        strict_errors.extend(decoded.strict_errors);
        codec::enforce(self.cx, self.validation, &self.gvk, &strict_errors)
            .map_err(|error| unusable(&patched, &error))?;
        Ok(decoded.value)
    }
}

#[async_trait::async_trait]
impl Source for Patch<'_> {
    async fn object(&mut self, old: Option<&Value>) -> Result<Value, ApiError> {
        let Some(old) = old else { return Err(ApiError::internal("a patch needs an object")) };
        let mut patched = self.apply(old)?;
        self.check_names(old, &patched)?;
        // What a patch does not speak of stays; a version it does speak of is a precondition.
        if object::meta(&patched, "uid").is_none() {
            object::set_meta(&mut patched, "uid", object::meta(old, "uid").cloned());
        }
        Ok(patched)
    }

    fn needs_object(&self) -> bool {
        true
    }
}

impl Patch<'_> {
    fn check_names(&self, old: &Value, new: &Value) -> Result<(), ApiError> {
        let name = object::meta_text(old, "name");
        let own = object::meta_text(new, "name");
        if own == name {
            return Ok(());
        }
        if own.is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )))
    }
}
