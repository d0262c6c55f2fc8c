//! PATCH of an object (upstream `endpoints/handlers/patch.go`).

use api::codec::ordered::{self, Touched};
use api::codec::yaml;
use api::field;
use api::managed_fields::FieldManager;
use api::names::{GroupResource, GroupVersionKind};
use api::status::ApiError;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Map, Value};

use super::options::{FieldValidation, patch_options};
use super::update::answer;
use crate::body::{self, Body};
use crate::codec;
use crate::negotiate;
use crate::object;
use crate::registry::managed_fields::{self, AnyVersions};
use crate::registry::write::{Source, Write, match_namespace};
use crate::registry::{Custom, Resource};
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

/// What is done with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It is a patch.
    Patch(PatchType),
    /// It is a configuration to be applied.
    Apply,
}

const TYPES: [(&str, How); 4] = [
    ("application/json-patch+json", How::Patch(PatchType::Json)),
    ("application/merge-patch+json", How::Patch(PatchType::Merge)),
    ("application/strategic-merge-patch+json", How::Patch(PatchType::Strategic)),
    ("application/apply-patch+yaml", How::Apply),
];

/// Patches an object, or the part of it that a subresource stands for.
pub async fn patch(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let versions = managed_fields::versions(resource, &cx.info.subresource);
    let (mut patch, options) = read(cx, request, resource, &resource.gvk, versions).await?;
    let write = Write { options, ..Write::new(cx, resource) };
    let updated = write.update(&cx.info.name, &mut patch).await?;
    answer(cx, resource, updated, accepted).await
}

/// Reads a patch for objects of a kind, with the options of the request.
pub async fn read<'a>(
    cx: &'a Context,
    request: Request<Body>,
    resource: &Resource,
    gvk: &GroupVersionKind,
    versions: AnyVersions,
) -> Result<(Patch<'a>, Value), ApiError> {
    let media = negotiate::media_type_as_sent(&cx.headers);
    let custom = resource.custom.as_ref().filter(|_| *gvk == resource.gvk).cloned();
    let strategic = How::Patch(PatchType::Strategic);
    let possible = |how: &How| resource.custom.is_none() || *how != strategic;
    let found = TYPES.iter().find(|(name, how)| *name == media && possible(how));
    let Some((_, how)) = found else {
        if resource.custom.is_some() {
            // They are not behind that router.
            let types = TYPES.iter().filter(|(_, how)| possible(how)).map(|(name, _)| *name);
            let types = types.collect::<Vec<_>>().join(", ");
            return Err(negotiate::unsupported(format!(
                "the body of the request was in an unknown format - accepted media types include: {types}"
            )));
        }
        // Refused by upstream's router, in its words.
        let mut error = negotiate::unsupported("415: Unsupported Media Type");
        error.status.details = Some(Default::default());
        return Err(error);
    };
    let bytes = body::read(request.into_body()).await?;
    if let Some(record) = &cx.record {
        record.request_patch(&bytes);
    }
    let (validation, options) = patch_options(cx, *how == How::Apply)?;
    let namespaced = resource.namespaced;
    Ok((Patch { cx, how: *how, bytes, gvk: gvk.clone(), custom, namespaced, validation, versions }, options))
}

/// 422 for a patch whose outcome is no object of its type.
fn unusable(shown: &str, error: &ApiError) -> ApiError {
    let why = error.message();
    let why = why
        .split_once(" cannot be handled as a ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(why, |(_, w)| w);
    let invalid = field::Error::invalid(&field::Path::new("patch"), shown, why);
    ApiError::invalid(&GroupVersionKind::new("", "", ""), "", &[invalid])
}

/// What is shown of a patch that cannot be used: its outcome, or itself if it is merged by the type's rules.
fn shown(kind: PatchType, bytes: &[u8], patched: &Value, gvk: &GroupVersionKind) -> String {
    let patch: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let touched = match kind {
        PatchType::Strategic => return api::patch::go_value(&patch),
        PatchType::Merge => patch,
        PatchType::Json => touched_by(&patch),
    };
    let mut out = Vec::new();
    ordered::write(&mut out, &Touched { value: patched, ty: api::schema::type_for(gvk), touched: &touched });
    String::from_utf8_lossy(&out).into_owned()
}

/// The places that the operations of a JSON patch went through, as nested objects.
fn touched_by(operations: &Value) -> Value {
    let mut touched = Value::Object(Map::new());
    for operation in operations.as_array().into_iter().flatten() {
        for path in ["path", "from"].iter().filter_map(|key| operation[*key].as_str()) {
            let mut parts: Vec<&str> = path.split('/').skip(1).collect();
            parts.pop();
            let mut place = &mut touched;
            for part in parts {
                let name = part.replace("~1", "/").replace("~0", "~");
                let Some(map) = place.as_object_mut() else { break };
                place = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
            }
        }
    }
    touched
}

/// A patch as the source of a new state.
pub struct Patch<'a> {
    cx: &'a Context,
    how: How,
    bytes: Bytes,
    gvk: GroupVersionKind,
    custom: Option<Custom>,
    namespaced: bool,
    validation: FieldValidation,
    versions: AnyVersions,
}

impl Patch<'_> {
    /// The patched object, checked against its type, with its managers; `None`: there is no object yet.
    pub async fn apply(&self, old: Option<&Value>) -> Result<Value, ApiError> {
        let mut object = match (self.how, old) {
            (How::Apply, old) => self.applied(old).await?,
            (How::Patch(kind), Some(old)) => {
                let mut object = self.patched(kind, old)?;
                let subresource = &self.cx.info.subresource;
                managed_fields::record(
                    self.cx,
                    &self.versions,
                    &self.gvk,
                    subresource,
                    &mut object,
                    Some(old),
                )
                .await;
                object
            }
            (How::Patch(_), None) => return Err(ApiError::internal("a patch needs an object")),
        };
        let namespace = if self.namespaced { self.cx.info.namespace.as_str() } else { "" };
        match_namespace(namespace, self.namespaced, &mut object)?;
        self.check_names(&object)?;
        Ok(object)
    }

    fn patched(&self, kind: PatchType, old: &Value) -> Result<Value, ApiError> {
        let (patched, mut strict_errors) = codec::patch(kind, &self.gvk, old, &self.bytes)?;
        let refuse = |error: &ApiError| unusable(&shown(kind, &self.bytes, &patched, &self.gvk), error);
        let decoded = self.decoded(kind, &patched).map_err(|error| refuse(&error))?;
        let mut unknown = decoded.strict_errors;
        if kind == PatchType::Strategic {
            unknown.sort();
        }
        strict_errors.extend(unknown);
        codec::enforce(self.cx, self.validation, &self.gvk, &strict_errors)
            .map_err(|error| refuse(&error))?;
        let mut object = decoded.value;
        // What a patch does not speak of stays; a version it does speak of is a precondition.
        if object::meta(&object, "uid").is_none() {
            object::set_meta(&mut object, "uid", object::meta(old, "uid").cloned());
        }
        Ok(object)
    }

    /// A patched object by the way that upstream has for it: through the type itself for a patch that knows it, else
    /// as if it were a body, which may be of another version.
    fn decoded(&self, kind: PatchType, patched: &Value) -> Result<codec::Decoded, ApiError> {
        if self.custom.is_some() {
            return codec::decode_value_for(self.custom.as_ref(), patched.clone(), &self.gvk);
        }
        if kind == PatchType::Strategic {
            let ty = api::schema::type_for(&self.gvk);
            if let Some(why) = ty.and_then(|ty| ty.unconvertible(patched)) {
                return Err(ApiError::bad_request(why));
            }
        } else if let Some(other) = codec::patched_kind(patched, &self.gvk)? {
            let mut decoded = codec::decode_value(patched.clone(), &other)?;
            decoded.value = codec::convert(decoded.value, &other, &self.gvk)?;
            return Ok(decoded);
        }
        codec::decode_value(patched.clone(), &self.gvk)
    }

    /// Upstream's `applyPatcher`.
    async fn applied(&self, old: Option<&Value>) -> Result<Value, ApiError> {
        let query = &self.cx.query;
        let refused = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
        let loaded = yaml::load(&self.bytes)
            .map_err(|why| refused(format!("error converting YAML to JSON: {why}")))?;
        if !matches!(loaded.value, Value::Object(_) | Value::Null) {
            let found = api::codec::json::kind_of(&loaded.value);
            let why =
                format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
            return Err(refused(format!("error unmarshaling JSON: while decoding JSON: {why}")));
        }
        let now = object::now();
        let name = query.first("fieldManager").unwrap_or_default();
        let force = query.bool("force").unwrap_or(false);
        let apply = || {
            let manager = FieldManager {
                versions: self.versions.as_versions(),
                kind: &self.gvk,
                subresource: &self.cx.info.subresource,
                now: now.as_str().unwrap_or_default(),
            };
            manager.apply(old, &loaded.value, name, force)
        };
        let object = loop {
            let applied = apply();
            if !self.versions.supply().await {
                break applied?;
            }
        };
        match (loaded.strict_error(), self.validation) {
            (None, _) | (_, FieldValidation::Ignore) => {}
            (Some(_), FieldValidation::Warn) => {
                loaded.duplicates.iter().for_each(|duplicate| self.cx.warn(duplicate.as_str()));
            }
            (Some(why), FieldValidation::Strict) => {
                let why = format!("error strict decoding YAML: error converting YAML to JSON: {why}");
                return Err(ApiError::bad_request(why));
            }
        }
        Ok(object)
    }
}

#[async_trait::async_trait]
impl Source for Patch<'_> {
    async fn object(&mut self, old: Option<&Value>) -> Result<Value, ApiError> {
        let object = self.apply(old).await?;
        let uid = object::meta_text(&object, "uid");
        if old.is_none() && !uid.is_empty() {
            let info = &self.cx.info;
            let resource = GroupResource::new(info.group.clone(), info.resource.clone());
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(&resource, &info.name, &why));
        }
        Ok(object)
    }

    fn needs_object(&self) -> bool {
        self.how != How::Apply
    }

    fn may_create(&self) -> bool {
        self.how == How::Apply
    }

    fn has_preconditions(&self) -> bool {
        false
    }

    fn records_managers(&self) -> bool {
        true
    }
}

impl Patch<'_> {
    fn check_names(&self, new: &Value) -> Result<(), ApiError> {
        let name = &self.cx.info.name;
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
