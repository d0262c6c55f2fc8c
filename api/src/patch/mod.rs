//! Patches: JSON patch, JSON merge patch and strategic merge patch, with the errors upstream answers.

use serde_json::Value;

use crate::gofmt;

pub mod json;
pub mod merge;
pub mod strategic;

pub use json::JsonPatch;

/// Why a patch could not be read or applied, sorted by the answer it gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 400: the patch makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// 413: too many operations.
    #[error("{0}")]
    TooLarge(String),
    /// 422: the patch cannot be applied to this object. Upstream answers without the reason, which is here for
    /// the log.
    #[error("{0}")]
    Unprocessable(String),
    /// 422: a test that is part of the patch failed.
    #[error("{0}")]
    TestFailed(String),
    /// 500: a fault of the patch that upstream does not foresee.
    #[error("{0}")]
    Internal(String),
}

/// What upstream says to a patch that is [`Error::Unprocessable`].
pub const UNPROCESSABLE_MESSAGE: &str = "the server rejected our request due to an error in our request";

impl Error {
    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::TooLarge(_) => 413,
            Self::Unprocessable(_) | Self::TestFailed(_) => 422,
            Self::Internal(_) => 500,
        }
    }
}

impl From<Error> for crate::status::ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::BadRequest(message) => Self::bad_request(message),
            Error::TooLarge(message) => {
                let mut error = Self::too_large(format!("Request entity too large: {message}"));
                error.status.details = None;
                error
            }
            Error::Unprocessable(_) | Error::TestFailed(_) => {
                let mut error = Self::new(422, "Invalid", UNPROCESSABLE_MESSAGE);
                error.status.details = Some(Default::default());
                error
            }
            Error::Internal(message) => Self::new(500, "", message),
        }
    }
}

/// A patch in the form it was sent, with what a strict decoder has against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Strict<T> {
    /// The patch.
    pub patch: T,
    /// Duplicate and unknown fields of the patch itself.
    pub strict_errors: Vec<String>,
}

/// A value as Go's `%v` prints it.
#[must_use]
pub fn go_value(value: &Value) -> String {
    gofmt::plain(value)
}

/// The Go type that JSON of this kind is decoded into. Null has none, which prints as a mistake.
pub(crate) fn go_type(value: &Value) -> &'static str {
    if value.is_null() { "%!s(<nil>)" } else { gofmt::type_name(value) }
}
