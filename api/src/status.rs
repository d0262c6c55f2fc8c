//! The `Status` object by which every API error reaches a client (upstream `apimachinery/pkg/api/errors`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::field;
use crate::names::{GroupResource, GroupVersionKind};

/// An API error: an HTTP code and the Status body that goes with it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", .status.message.as_deref().unwrap_or("unknown error"))]
pub struct ApiError {
    /// The body sent to the client.
    pub status: Box<Status>,
}

/// The result of an API operation.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

impl ApiError {
    /// An error from its parts.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: Box::new(Status {
                code: Some(i32::from(code)),
                reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
                message: Some(message.into()),
                status: Some("Failure".to_owned()),
                ..Status::default()
            }),
        }
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    /// The machine-readable reason, for example `NotFound`.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.status.reason.as_deref().unwrap_or_default()
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or_default()
    }

    /// Adds `details` that name an object.
    #[must_use]
    pub fn with_details(mut self, group: &str, kind: &str, name: &str) -> Self {
        let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        let details = self.status.details.get_or_insert_with(StatusDetails::default);
        (details.group, details.kind, details.name) = (some(group), some(kind), some(name));
        self
    }

    fn on(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(&resource.group, &resource.resource, name)
    }

    /// Adds causes to `details`.
    #[must_use]
    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.status.details.get_or_insert_with(StatusDetails::default).causes = Some(causes);
        self
    }

    /// Tells the client when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.status.details.get_or_insert_with(StatusDetails::default).retry_after_seconds = Some(seconds);
        self
    }

    /// 404: the object does not exist.
    #[must_use]
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).on(resource, name)
    }

    /// 404: nothing is served at this path.
    #[must_use]
    pub fn no_such_resource() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource");
        error.status.details = Some(StatusDetails::default());
        error
    }

    /// 409: the name is taken.
    #[must_use]
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).on(resource, name)
    }

    /// 409: the object is not in the state the caller assumed.
    #[must_use]
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message).on(resource, name)
    }

    /// 409 for an update based on an old resourceVersion.
    #[must_use]
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 403: not permitted; `why` follows "is forbidden: ".
    #[must_use]
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, true) => format!("forbidden: {why}"),
            (_, true) => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).on(resource, name)
    }

    /// 401: nobody we know.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400: the request makes no sense.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422: the object is invalid. Causes come in the order of `errors`.
    #[must_use]
    pub fn invalid(kind: &GroupVersionKind, name: &str, errors: &[field::Error]) -> Self {
        let qualified = if kind.group.is_empty() {
            kind.kind.to_string()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut seen = std::collections::HashSet::new();
        let texts: Vec<_> =
            errors.iter().map(ToString::to_string).filter(|t| seen.insert(t.clone())).collect();
        let message = match texts.as_slice() {
            [] => format!("{qualified} {name:?} is invalid"),
            [one] => format!("{qualified} {name:?} is invalid: {one}"),
            many => format!("{qualified} {name:?} is invalid: [{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                reason: Some(error.kind.reason().to_owned()),
                message: Some(error.message()),
                field: Some(error.field.to_string()),
            })
            .collect();
        let error = Self::new(422, "Invalid", message).with_details(&kind.group, &kind.kind, name);
        if errors.is_empty() { error } else { error.with_causes(causes) }
    }

    /// 410: the resourceVersion or continue token is too old.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 405: the resource does not take this action.
    #[must_use]
    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind \"{resource}\"");
        Self::new(405, "MethodNotAllowed", message).on(resource, "")
    }

    /// 500: something failed on the server's side.
    #[must_use]
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let cause = StatusCause { message: Some(why.to_string()), ..StatusCause::default() };
        Self::new(500, "InternalError", format!("Internal error occurred: {why}")).with_causes(vec![cause])
    }

    /// 503: cannot serve this now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: did not finish in time.
    #[must_use]
    pub fn timeout(message: impl Into<String>, retry_after: i32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into())).with_retry_after(retry_after)
    }

    /// 429: too many requests.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_after: i32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after)
    }

    /// 413: the body is too large.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }
}
