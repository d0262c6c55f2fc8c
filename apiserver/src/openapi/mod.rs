//! `/openapi/v2` and `/openapi/v3`: the API described for clients.

pub mod descriptions;

use api::status::ApiError;
use http::Response;

use crate::body::Body;
use crate::server::Context;

/// Answers an OpenAPI path; `None` if it is none.
pub fn serve(_cx: &Context, _path: &str) -> Result<Option<Response<Body>>, ApiError> {
    Ok(None)
}
