//! What an error of the API means to a controller.

use client::kube;

/// The HTTP code of an API error; 0 for every other error.
pub fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// The text a user should read: the API's message without decoration.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

pub use client::{is_already_exists, is_not_found};

/// The object was modified since it was read, or a precondition failed.
pub fn is_conflict(error: &kube::Error) -> bool {
    client::is_conflict(error) && !is_already_exists(error)
}

/// The object is invalid.
pub fn is_invalid(error: &kube::Error) -> bool {
    code(error) == 422
}

/// The resource does not support the verb.
pub fn is_method_not_supported(error: &kube::Error) -> bool {
    code(error) == 405
}

/// The namespace of the object is being deleted, so nothing can be created in it.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status
            .details
            .as_ref()
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")),
        _ => false,
    }
}

/// What a server said, or what Go's client says for servers that do not say it in the way of the API; `what` is what was
/// asked for, such as `get pods.metrics.k8s.io` (upstream `NewGenericServerResponse`).
pub fn message_about(error: &kube::Error, what: &str) -> String {
    let kube::Error::Api(status) = error else { return message(error) };
    if status.reason != UNREADABLE {
        return message(error);
    }
    let said = &status.message;
    let text = match status.code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 | 415 => said.clone(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be \
                processing the request"
            .to_owned(),
        500.. => format!("an error on the server ({said:?}) has prevented the request from succeeding"),
        code => {
            format!("the server responded with the status code {code} but did not return more information")
        }
    };
    if what.is_empty() { text } else { format!("{text} ({what})") }
}

/// The reason of answers that are not of the API (`kube_client`).
const UNREADABLE: &str = "Failed to parse error data";

/// Turns "gone already" into success.
pub trait IgnoreGone<T> {
    /// `None` when the object does not exist (any more).
    fn ignore_not_found(self) -> Result<Option<T>, kube::Error>;
    /// `None` when the object does not exist or is another one by now. For deletions with preconditions alone: a
    /// patch or an update may conflict although the object is the same, and has to be tried again.
    fn ignore_gone(self) -> Result<Option<T>, kube::Error>;
}

impl<T> IgnoreGone<T> for Result<T, kube::Error> {
    fn ignore_not_found(self) -> Result<Option<T>, kube::Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ignore_gone(self) -> Result<Option<T>, kube::Error> {
        match self.ignore_not_found() {
            Err(error) if is_conflict(&error) => Ok(None),
            other => other,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use client::Client;
    use client::kube::client::Body;
    use client::kube::core::Status;
    use http_body_util::Full;

    /// A client of a server that answers every call with this error.
    pub fn client_that_says(code: u16, reason: &'static str) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let status = serde_json::json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
            });
            http::Response::builder().status(code).body(Full::new(Bytes::from(status.to_string())))
        });
        Client::new(service, "default")
    }

    fn api(code: u16, reason: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure("said the server", reason).with_code(code)))
    }

    #[test]
    fn answers_of_other_servers_are_told_as_go_tells_them() {
        for (code, expected) in [
            (404, "the server could not find the requested resource (get pods.metrics.k8s.io)"),
            (503, "the server is currently unable to handle the request (get pods.metrics.k8s.io)"),
            (
                502,
                "an error on the server (\"404 page not found\") has prevented the request from succeeding (get pods.metrics.k8s.io)",
            ),
        ] {
            let said = client::kube::core::Status::failure("404 page not found", UNREADABLE).with_code(code);
            let error = kube::Error::Api(Box::new(said));
            assert_eq!(message_about(&error, "get pods.metrics.k8s.io"), expected, "{code}");
        }
        let said = client::kube::core::Status::failure("no such thing", "NotFound").with_code(404);
        assert_eq!(message_about(&kube::Error::Api(Box::new(said)), "get x"), "no such thing");
    }

    #[test]
    fn already_exists_is_no_conflict() {
        assert!(is_already_exists(&api(409, "AlreadyExists")));
        assert!(!is_conflict(&api(409, "AlreadyExists")));
        assert!(is_conflict(&api(409, "Conflict")));
        assert_eq!(message(&api(409, "Conflict")), "said the server");
    }

    #[test]
    fn gone_is_success_where_it_is_asked_for() {
        assert!(matches!(Err::<(), _>(api(404, "NotFound")).ignore_not_found(), Ok(None)));
        assert!(matches!(Err::<(), _>(api(409, "Conflict")).ignore_gone(), Ok(None)));
        assert!(Err::<(), _>(api(500, "InternalError")).ignore_gone().is_err());
    }
}
