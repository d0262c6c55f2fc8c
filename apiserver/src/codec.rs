//! Objects between bytes and values, for requests and answers: `api::codec` with the errors of the REST layer.

use api::codec::{json, protobuf, yaml};
use api::names::{GroupVersion, GroupVersionKind};
use api::schema::{self, TypeRef};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use crate::handlers::options::FieldValidation;
use crate::handlers::patch::PatchType;
use crate::negotiate::{Accepted, Encoding};
use crate::object;
use crate::server::Context;

/// A body that was read.
pub struct Decoded {
    /// The object, of the kind expected, defaulted.
    pub value: Value,
    /// What a strict decoder would have refused.
    pub strict_errors: Vec<String>,
}

fn type_of(gvk: &GroupVersionKind) -> Result<TypeRef<'static>, ApiError> {
    schema::type_for(gvk).ok_or_else(|| ApiError::internal(format!("no schema for {gvk}")))
}

/// Reads a body as an object of `gvk`, whose kind and version it may leave out.
pub fn decode(bytes: &Bytes, encoding: Encoding, gvk: &GroupVersionKind) -> Result<Decoded, ApiError> {
    decode_one_of(bytes, encoding, std::slice::from_ref(gvk))
}

/// As [`decode`], of any of several kinds; the first one is meant if the body says none.
pub fn decode_one_of(bytes: &Bytes, encoding: Encoding, kinds: &[GroupVersionKind]) -> Result<Decoded, ApiError> {
    let (mut value, gvk, strict_errors) = match encoding {
        Encoding::Json => {
            let gvk = check_kind(&kind_of_json(bytes)?, kinds)?;
            let decoded = type_of(gvk)?.decode_slice(bytes).map_err(|e| unusable(gvk, &e))?;
            (decoded.value, gvk, decoded.strict_errors)
        }
        Encoding::Yaml => {
            let raw = yaml::load(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            let strict_error = raw.strict_error();
            let gvk = check_kind(&kind_of_value(&raw.value), kinds)?;
            let decoded = type_of(gvk)?.decode_value(raw.value).map_err(|e| unusable(gvk, &e))?;
            let strict = strict_error.into_iter().chain(decoded.strict_errors).collect();
            (decoded.value, gvk, strict)
        }
        Encoding::Protobuf => {
            let envelope =
                protobuf::Unknown::open(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            let gvk = check_kind(&(envelope.api_version.to_owned(), envelope.kind.to_owned()), kinds)?;
            let value = protobuf::decode_as(&envelope, type_of(gvk)?).map_err(|e| unusable(gvk, &e))?;
            (value, gvk, Vec::new())
        }
    };
    object::set_kind(&mut value, gvk);
    api::defaults::apply(gvk, &mut value);
    Ok(Decoded { value, strict_errors })
}

/// A value as an object of `gvk`: pruned, normalised and defaulted.
pub fn decode_value(value: Value, gvk: &GroupVersionKind) -> Result<Decoded, ApiError> {
    let decoded = type_of(gvk)?.decode_value(value).map_err(|e| unusable(gvk, &e))?;
    let mut value = decoded.value;
    object::set_kind(&mut value, gvk);
    api::defaults::apply(gvk, &mut value);
    Ok(Decoded { value, strict_errors: decoded.strict_errors })
}

fn unusable(gvk: &GroupVersionKind, why: &dyn std::fmt::Display) -> ApiError {
    let (kind, version) = (&gvk.kind, gvk.group_version().to_string());
    let version = version.rsplit('/').next().unwrap_or_default().to_owned();
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// A patched object, not yet checked against its type, and what is wrong with the patch itself.
pub fn patch(
    kind: PatchType,
    gvk: &GroupVersionKind,
    old: &Value,
    patch: &[u8],
) -> Result<(Value, Vec<String>), ApiError> {
    match kind {
        PatchType::Json => {
            let read = api::patch::JsonPatch::decode(patch)?;
            Ok((read.patch.apply(old)?, read.strict_errors))
        }
        PatchType::Merge => {
            let read = api::patch::merge::decode(patch)?;
            let mut object = old.clone();
            api::patch::merge::apply(&mut object, read.patch);
            Ok((object, read.strict_errors))
        }
        PatchType::Strategic => {
            let read = api::patch::strategic::decode(patch)?;
            Ok((api::patch::strategic::apply(old, &read.patch, type_of(gvk)?)?, read.strict_errors))
        }
    }
}

/// `apiVersion` and `kind` of JSON text, without decoding the rest.
fn kind_of_json(bytes: &[u8]) -> Result<(String, String), ApiError> {
    #[derive(serde::Deserialize)]
    struct TypeMeta {
        #[serde(default, rename = "apiVersion")]
        api_version: Option<serde_json::Value>,
        #[serde(default)]
        kind: Option<serde_json::Value>,
    }
    match serde_json::from_slice::<TypeMeta>(bytes) {
        Ok(meta) => {
            let text = |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            Ok((text(meta.api_version), text(meta.kind)))
        }
        Err(error) if error.is_data() => Ok((String::new(), String::new())),
        Err(error) => {
            let why = json::syntax_error(bytes, &error);
            Err(ApiError::bad_request(format!(
                "couldn't get version/kind; json parse error: {why}"
            )))
        }
    }
}

fn kind_of_value(value: &Value) -> (String, String) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("apiVersion"), text("kind"))
}

/// The kind of a body must be one of those of the endpoint, as far as it says one.
fn check_kind<'a>(
    found: &(String, String),
    kinds: &'a [GroupVersionKind],
) -> Result<&'a GroupVersionKind, ApiError> {
    let (api_version, kind) = found;
    let fits = |gvk: &&GroupVersionKind| {
        (api_version.is_empty() || *api_version == gvk.group_version().to_string())
            && (kind.is_empty() || *kind == gvk.kind)
    };
    if let Some(gvk) = kinds.iter().find(fits) {
        return Ok(gvk);
    }
    let first = kinds.first().ok_or_else(ApiError::no_such_resource)?;
    if !api_version.is_empty() {
        let expected = first.group_version();
        match GroupVersion::parse(api_version) {
            None => return Err(ApiError::bad_request(format!("unexpected GroupVersion string: {api_version}"))),
            Some(version) if version != expected => {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({version}) does not match the expected API version ({expected})"
                )));
            }
            Some(_) => {}
        }
    }
    let (want, version) = (&first.kind, &first.version);
    Err(ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {want}: converting ({kind}) to ({want}): unknown conversion"
    )))
}

/// What becomes of unknown and duplicate fields.
pub fn enforce(cx: &Context, validation: FieldValidation, strict_errors: &[String]) -> Result<(), ApiError> {
    if strict_errors.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => strict_errors.iter().for_each(|error| cx.warn(error.as_str())),
        FieldValidation::Strict => return Err(ApiError::bad_request(schema::strict_message(strict_errors))),
    }
    Ok(())
}

/// An object in another version of its group.
pub fn convert(object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, ApiError> {
    if from == to {
        return Ok(object);
    }
    let mut object = object;
    object::set_kind(&mut object, to);
    Ok(object)
}

/// An object in the encoding of an answer.
pub fn value(value: &Value, accepted: Accepted) -> Result<Bytes, ApiError> {
    let bytes = match accepted.encoding {
        Encoding::Json if accepted.pretty => json::encode_pretty(value),
        Encoding::Json => json::encode(value),
        Encoding::Yaml => yaml::encode(value).into(),
        Encoding::Protobuf => protobuf(value)?.into(),
    };
    Ok(Bytes::from(bytes))
}

/// An object on the protobuf wire, in its envelope.
pub fn protobuf(value: &Value) -> Result<Vec<u8>, ApiError> {
    let (api_version, kind) = kind_of_value(value);
    let gvk = GroupVersion::parse(&api_version)
        .ok_or_else(|| ApiError::internal(format!("object without version: {api_version:?}")))?
        .with_kind(kind);
    protobuf::encode(value, type_of(&gvk)?).map_err(ApiError::internal)
}

/// The Status object of an error.
#[must_use]
pub fn status(error: &ApiError) -> Value {
    let mut value = serde_json::to_value(&*error.status).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("kind".into(), "Status".into());
        object.insert("apiVersion".into(), "v1".into());
        object.entry("metadata").or_insert_with(|| serde_json::json!({}));
    }
    value
}
