//! Objects between bytes and values, for requests and answers: `api::codec` with the errors of the REST layer.

use api::codec::kind::TypeMeta;
use api::codec::ordered::{self, Ordered};
use api::codec::verbatim::Verbatim;
use api::codec::{protobuf, yaml};
use api::names::{GroupVersion, GroupVersionKind};
use api::schema::{self, TypeRef};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use crate::handlers::options::FieldValidation;
use crate::handlers::patch::PatchType;
use crate::handlers::read::internal_package;
use crate::negotiate::{Accepted, Encoding};
use crate::object;
use crate::registry::{Custom, Resource};
use crate::server::Context;

mod custom;

/// A body that was read.
pub struct Decoded {
    /// The object, of the kind expected, defaulted.
    pub value: Value,
    /// What a strict decoder would have refused.
    pub strict_errors: Vec<String>,
    /// Texts of embedded objects that the value does not tell.
    pub verbatim: Vec<Verbatim>,
}

fn type_of(gvk: &GroupVersionKind) -> Result<TypeRef<'static>, ApiError> {
    schema::type_for(gvk).ok_or_else(|| ApiError::internal(format!("no schema for {gvk}")))
}

/// Reads a body as an object of `gvk`, whose kind and version it may leave out.
pub fn decode(bytes: &Bytes, encoding: Encoding, gvk: &GroupVersionKind) -> Result<Decoded, ApiError> {
    decode_one_of(bytes, encoding, std::slice::from_ref(gvk))
}

/// Reads a body as an object of a resource.
pub fn decode_for(resource: &Resource, bytes: &Bytes, encoding: Encoding) -> Result<Decoded, ApiError> {
    match &resource.custom {
        Some(served) => custom::decode(served, bytes, encoding),
        None => decode(bytes, encoding, &resource.gvk),
    }
}

/// As [`decode`], of any of several kinds; the first one is meant if the body says none.
pub fn decode_one_of(
    bytes: &Bytes,
    encoding: Encoding,
    kinds: &[GroupVersionKind],
) -> Result<Decoded, ApiError> {
    let (mut value, gvk, strict_errors, verbatim) = match encoding {
        Encoding::Json => {
            let found = TypeMeta::of_json(bytes).map_err(|why| unrecognized(bytes, kinds, &why))?;
            let gvk = check_kind(&found, kinds)?;
            let decoded = type_of(gvk)?.decode_slice(bytes).map_err(|e| unusable(gvk, &e))?;
            let mut value = decoded.value;
            if forgets_managers(bytes) {
                object::set_meta(&mut value, "managedFields", Some(Value::Array(Vec::new())));
            }
            (value, gvk, decoded.strict_errors, decoded.verbatim)
        }
        Encoding::Yaml => {
            let raw = yaml::load(bytes).map_err(|error| unrecognized(bytes, kinds, &error.to_string()))?;
            let strict_error = raw.strict_error();
            let found = TypeMeta::of_value(&raw.value).map_err(|why| unrecognized(bytes, kinds, &why))?;
            let gvk = check_kind(&found, kinds)?;
            let decoded = type_of(gvk)?.decode_value(raw.value).map_err(|e| unusable(gvk, &e))?;
            let strict = strict_error.into_iter().chain(decoded.strict_errors).collect();
            (decoded.value, gvk, strict, decoded.verbatim)
        }
        Encoding::Protobuf => {
            let envelope = protobuf::Unknown::open(bytes)
                .map_err(|error| unrecognized(bytes, kinds, &error.to_string()))?;
            let (api_version, kind) = (envelope.api_version.to_owned(), envelope.kind.to_owned());
            let gvk = check_kind(&TypeMeta { api_version, kind }, kinds)?;
            let ty = type_of(gvk)?;
            let value = protobuf::decode_as(&envelope, ty).map_err(|e| unusable(gvk, &e))?;
            let texts = if ty.embeds_objects() { protobuf::texts(envelope.raw, ty) } else { Ok(Vec::new()) };
            (value, gvk, Vec::new(), texts.map_err(|e| unusable(gvk, &e))?)
        }
    };
    object::set_kind(&mut value, gvk);
    api::defaults::apply(gvk, &mut value);
    Ok(Decoded { value, strict_errors, verbatim })
}

/// Whether the body says `managedFields: []`. Decoding drops empty lists, but this one is a wish.
fn forgets_managers(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Meta {
        #[serde(rename = "managedFields")]
        managed_fields: Option<Vec<serde::de::IgnoredAny>>,
    }
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Meta,
    }
    let mentioned = memchr::memmem::find(bytes, b"\"managedFields\"").is_some();
    mentioned
        && serde_json::from_slice::<Object>(bytes)
            .is_ok_and(|object| object.metadata.managed_fields.is_some_and(|list| list.is_empty()))
}

/// A value as an object of `gvk`: pruned, normalised and defaulted.
pub fn decode_value(value: Value, gvk: &GroupVersionKind) -> Result<Decoded, ApiError> {
    let decoded = type_of(gvk)?.decode_value(value).map_err(|e| unusable(gvk, &e))?;
    let mut value = decoded.value;
    object::set_kind(&mut value, gvk);
    api::defaults::apply(gvk, &mut value);
    Ok(Decoded { value, strict_errors: decoded.strict_errors, verbatim: decoded.verbatim })
}

/// As [`decode_value`], for an object of a custom resource if it is one.
pub fn decode_value_for(
    served: Option<&Custom>,
    value: Value,
    gvk: &GroupVersionKind,
) -> Result<Decoded, ApiError> {
    match served {
        Some(served) => custom::decode_value(served, value),
        None => decode_value(value, gvk),
    }
}

/// 400 for a body that says nothing of what it is (upstream `transformDecodeError`).
fn unrecognized(body: &[u8], kinds: &[GroupVersionKind], why: &str) -> ApiError {
    const SHOWN: usize = 30;
    let shown = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let summary = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    };
    let kind = kinds.first().map(|gvk| gvk.kind.as_ref()).unwrap_or_default();
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({summary})"
    ))
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

fn kind_of_value(value: &Value) -> (String, String) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("apiVersion"), text("kind"))
}

/// The kind of a body must be one of those of the endpoint, as far as it says one.
fn check_kind<'a>(found: &TypeMeta, kinds: &'a [GroupVersionKind]) -> Result<&'a GroupVersionKind, ApiError> {
    let TypeMeta { api_version, kind } = found;
    let fits = |gvk: &&GroupVersionKind| {
        (api_version.is_empty() || *api_version == gvk.group_version().to_string())
            && (kind.is_empty() || *kind == gvk.kind)
    };
    if let Some(gvk) = kinds.iter().find(fits) {
        return Ok(gvk);
    }
    let first = kinds.first().ok_or_else(ApiError::no_such_resource)?;
    let expected = first.group_version();
    let found = named_kind(found, first)
        .ok_or_else(|| ApiError::bad_request(format!("unexpected GroupVersion string: {api_version}")))?;
    let version = found.group_version();
    Err(ApiError::bad_request(match unconvertible(&found, first) {
        Some(why) => {
            let (kind, wanted) = (&found.kind, &first.kind);
            format!("{kind} in version {:?} cannot be handled as a {wanted}: {why}", version.version)
        }
        None => format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        ),
    }))
}

/// The kind that a document names, as far as it does; `None` if its version is none.
fn named_kind(found: &TypeMeta, expected: &GroupVersionKind) -> Option<GroupVersionKind> {
    let version = match found.api_version.as_str() {
        "" => expected.group_version(),
        text => GroupVersion::parse(text)?,
    };
    let kind = if found.kind.is_empty() { expected.kind.to_string() } else { found.kind.clone() };
    Some(version.with_kind(kind))
}

/// Why an object of a kind cannot become one of another.
fn unconvertible(found: &GroupVersionKind, wanted: &GroupVersionKind) -> Option<String> {
    if schema::type_for(found).is_none() {
        return Some(format!(
            "no kind {:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            found.kind,
            found.group_version().to_string()
        ));
    }
    let same = found.kind == wanted.kind && internal_group(found) == internal_group(wanted);
    (!same).then(|| {
        let package = internal_package(&wanted.group);
        let (version, kind) = (&found.version, &found.kind);
        format!("converting ({version}.{kind}) to ({package}.{}): unknown conversion", wanted.kind)
    })
}

/// The group that upstream has the internal type of a kind in: some kinds are served, or were, in several groups.
fn internal_group(gvk: &GroupVersionKind) -> &str {
    match (&*gvk.group, &*gvk.kind) {
        ("extensions" | "apps", "Scale") => "autoscaling",
        ("extensions", "Ingress" | "NetworkPolicy") => "networking.k8s.io",
        ("extensions", "DaemonSet" | "Deployment" | "ReplicaSet") => "apps",
        ("events.k8s.io", "Event") => "",
        (group, _) => group,
    }
}

/// The kind that a patched object says it is of, if that is another than it was.
///
/// # Errors
/// When it says nothing of use, or objects of that kind cannot become what this one was.
pub fn patched_kind(patched: &Value, gvk: &GroupVersionKind) -> Result<Option<GroupVersionKind>, ApiError> {
    let found = TypeMeta::of_value(patched).map_err(ApiError::bad_request)?;
    let named = named_kind(&found, gvk).ok_or_else(|| {
        ApiError::bad_request(format!("unexpected GroupVersion string: {}", found.api_version))
    })?;
    match unconvertible(&named, gvk) {
        Some(why) => Err(ApiError::bad_request(why)),
        None => Ok(Some(named).filter(|named| named != gvk)),
    }
}

/// What becomes of unknown and duplicate fields.
pub fn enforce(
    cx: &Context,
    validation: FieldValidation,
    gvk: &GroupVersionKind,
    strict_errors: &[String],
) -> Result<(), ApiError> {
    if strict_errors.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => strict_errors.iter().flat_map(|e| warnings_of(e)).for_each(|w| cx.warn(w)),
        FieldValidation::Strict => return Err(unusable(gvk, &schema::strict_message(strict_errors))),
    }
    Ok(())
}

/// The warnings that an error is: those of a YAML reader are told one by one (upstream `parseYAMLWarnings`).
fn warnings_of(error: &str) -> Vec<&str> {
    let yaml = error.strip_prefix("error converting YAML to JSON: ").unwrap_or(error);
    match yaml.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.split('\n').map(str::trim).collect(),
        None => vec![error],
    }
}

/// An object in another version of its group.
pub fn convert(object: Value, from: &GroupVersionKind, to: &GroupVersionKind) -> Result<Value, ApiError> {
    if from == to {
        return Ok(object);
    }
    Ok(api::convert::convert(from, to, object))
}

/// An object as Go would write it.
fn go_json(value: &Value, pretty: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let object = Ordered { value, ty: built_in(value) };
    if pretty {
        ordered::write_pretty(&mut out, &object);
    } else {
        ordered::write(&mut out, &object);
        out.push(b'\n');
    }
    out
}

/// The type of an object of this server's own kinds.
#[must_use]
pub fn built_in(value: &Value) -> Option<TypeRef<'static>> {
    let (api_version, kind) = kind_of_value(value);
    schema::type_for(&GroupVersion::parse(&api_version)?.with_kind(kind))
}

/// The texts of embedded objects in an object that is encoded as JSON.
pub fn texts(gvk: &GroupVersionKind, json: impl FnOnce() -> Bytes) -> Vec<Verbatim> {
    let ty = schema::type_for(gvk).filter(|ty| ty.embeds_objects());
    ty.and_then(|ty| ty.decode_slice(&json()).ok()).map(|decoded| decoded.verbatim).unwrap_or_default()
}

/// The bare protobuf message of an object of a built-in kind, with the texts of embedded objects.
pub fn protobuf_message(
    value: &Value,
    gvk: &GroupVersionKind,
    texts: &[Verbatim],
) -> Result<Vec<u8>, ApiError> {
    let (ty, mut message) = (type_of(gvk)?, Vec::with_capacity(512));
    protobuf::encode_message(&mut message, value, ty).map_err(ApiError::internal)?;
    match texts {
        [] => Ok(message),
        texts => protobuf::restore(&message, ty, texts).map_err(ApiError::internal),
    }
}

/// An object in the encoding of an answer.
pub fn value(value: &Value, accepted: Accepted) -> Result<Bytes, ApiError> {
    let bytes = match accepted.encoding {
        Encoding::Json => go_json(value, accepted.pretty),
        Encoding::Yaml => yaml::encode(value).into(),
        Encoding::Protobuf => protobuf(value)?,
    };
    Ok(Bytes::from(bytes))
}

/// An object on the protobuf wire, in its envelope.
pub fn protobuf(value: &Value) -> Result<Vec<u8>, ApiError> {
    let (api_version, kind) = kind_of_value(value);
    // Some discovery documents carry no version.
    let version = GroupVersion::parse(&api_version).unwrap_or_else(|| GroupVersion::new("", "v1"));
    let gvk = version.with_kind(kind);
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
