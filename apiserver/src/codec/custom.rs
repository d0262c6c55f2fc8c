//! Custom objects between bytes and values (upstream `schemaCoercingDecoder` over `UnstructuredJSONScheme`): read
//! without types, then given the form that the schema of their version says.

use api::codec::yaml;
use api::schema;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use super::{Decoded, kind_of_value, unusable};
use crate::negotiate::{Encoding, unsupported};
use crate::registry::Custom;

/// Upstream cannot say more of a body that does not say what it is.
const WITHOUT_KIND: &str = "Object 'Kind' is missing in 'unstructured object has no kind'";

/// Reads a body as an object of a custom resource.
pub fn decode(custom: &Custom, bytes: &Bytes, encoding: Encoding) -> Result<Decoded, ApiError> {
    let nameless = |_| ApiError::bad_request(WITHOUT_KIND);
    let (value, strict_errors) = match encoding {
        Encoding::Json => {
            let decoded = schema::decode_unstructured(bytes).map_err(nameless)?;
            (decoded.value, decoded.strict_errors)
        }
        Encoding::Yaml => {
            let loaded = yaml::load(bytes).map_err(|_| ApiError::bad_request(WITHOUT_KIND))?;
            let duplicates = loaded.strict_error().into_iter().collect();
            (loaded.value, duplicates)
        }
        Encoding::Protobuf => {
            return Err(unsupported(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json, application/yaml",
            ));
        }
    };
    let (api_version, kind) = kind_of_value(&value);
    if kind.is_empty() {
        return Err(ApiError::bad_request(WITHOUT_KIND));
    }
    let decoded = decode_value(custom, value)?;
    let expected = custom.version.api_version();
    if api_version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    let strict_errors = strict_errors.into_iter().chain(decoded.strict_errors).collect();
    Ok(Decoded { value: decoded.value, strict_errors, verbatim: Vec::new() })
}

/// A value as an object of a custom resource: pruned, its metadata in form, defaulted.
pub fn decode_value(custom: &Custom, value: Value) -> Result<Decoded, ApiError> {
    let version = &custom.version;
    let (value, unknown) = version.read(value).map_err(|why| unusable(&version.gvk, &why))?;
    let strict_errors = unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect();
    Ok(Decoded { value, strict_errors, verbatim: Vec::new() })
}
