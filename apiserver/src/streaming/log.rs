//! `pods/log`: a container's log from its kubelet, streamed.

use api::field;
use api::names::GroupVersionKind;
use api::status::ApiError;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use jiff::Timestamp;

use super::{Streaming, container, node_of, relay};
use crate::body::{self, Body};
use crate::query::{Query, is_true};
use crate::remote::describe;
use crate::request::RequestInfo;

/// So much of a kubelet's error is read.
const MAX_ERROR: usize = 50_000;

/// What to show of a log (upstream `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    container: String,
    follow: bool,
    previous: bool,
    timestamps: bool,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
    tail_lines: Option<i64>,
    limit_bytes: Option<i64>,
    stream: String,
    insecure: bool,
}

impl Options {
    fn parse(query: &Query) -> Result<Self, ApiError> {
        let flag = |name: &str| query.first(name).is_some_and(is_true);
        let since_time = query.first("sinceTime").filter(|text| !text.is_empty()).map(|text| {
            text.parse::<Timestamp>().map_err(|_| {
                ApiError::bad_request(format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                ))
            })
        });
        Ok(Self {
            container: query.first("container").unwrap_or_default().to_owned(),
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            since_seconds: query.int("sinceSeconds")?,
            since_time: since_time.transpose()?,
            tail_lines: query.int("tailLines")?,
            limit_bytes: query.int("limitBytes")?,
            stream: query.first("stream").unwrap_or_default().to_owned(),
            insecure: flag("insecureSkipTLSVerifyBackend"),
        })
    }

    fn validate(&self) -> field::ErrorList {
        let mut errors = Vec::new();
        let path = field::Path::new;
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            errors.push(field::Error::invalid(
                &path("tailLines"),
                lines,
                "must be greater than or equal to 0",
            ));
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(field::Error::invalid(&path("limitBytes"), bytes, "must be greater than 0"));
        }
        match (self.since_seconds, self.since_time) {
            (Some(_), Some(_)) => {
                let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                errors.push(field::Error::forbidden(&path("[]"), why));
            }
            (Some(seconds), None) if seconds < 1 => {
                errors.push(field::Error::invalid(&path("sinceSeconds"), seconds, "must be greater than 0"));
            }
            _ => {}
        }
        // Choosing a stream is an upstream feature that is off by default.
        if !self.stream.is_empty() {
            errors.push(field::Error::forbidden(&path("stream"), "may not be specified"));
        }
        errors
    }

    /// The query the kubelet gets, keys in order.
    fn query(&self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let flags = [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)];
        pairs.extend(flags.iter().filter(|(_, on)| *on).map(|(name, _)| (*name, "true".to_owned())));
        let numbers = [
            ("sinceSeconds", self.since_seconds),
            ("tailLines", self.tail_lines),
            ("limitBytes", self.limit_bytes),
        ];
        pairs
            .extend(numbers.iter().filter_map(|(name, value)| value.map(|value| (*name, value.to_string()))));
        if let Some(time) = self.since_time {
            pairs.push(("sinceTime", time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().replace(':', "%3A")));
        }
        pairs.sort();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }
}

impl Streaming {
    pub(super) async fn log(
        &self,
        info: &RequestInfo,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, ApiError> {
        if !accepts_text(headers) {
            return Err(not_acceptable());
        }
        let options = Options::parse(query)?;
        let errors = options.validate();
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                &GroupVersionKind::new("", "v1", "PodLogOptions"),
                &info.name,
                &errors,
            ));
        }
        let pod = self.pod(info, &info.name).await?;
        let container = container(&pod, &options.container)?;
        let Some(node) = node_of(&pod) else {
            let mut nothing = Response::new(body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        };
        let location = self.kubelets.locate(node, "pods").await?;
        let path = format!("/containerLogs/{}/{}/{container}?{}", info.namespace, info.name, options.query());
        let host = location.authority();
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::new(500, "", format!("Get \"https://{host}{path}\": {error}"))
        };
        let connection =
            self.kubelets.connect(&location, !options.insecure).await.map_err(|e| failed(&describe(&e)))?;
        let request = Request::get(&path).body(body::empty()).map_err(ApiError::internal)?;
        let response = relay::relay(connection, &host, request).await.map_err(|e| failed(&e))?;
        if !(200..=206).contains(&response.status().as_u16()) {
            return Err(kubelet_error(info, response).await);
        }
        let (_, body) = response.into_parts();
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

/// Whether the client takes text (or anything an error could be written in).
fn accepts_text(headers: &HeaderMap) -> bool {
    const REPRESENTATIONS: [&str; 7] = [
        "*/*",
        "text/*",
        "text/plain",
        "application/*",
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
    ];
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = values
        .flat_map(|value| value.split(','))
        .map(|part| part.split(';').next().unwrap_or_default().trim());
    !headers.contains_key(ACCEPT) || types.any(|media| media.is_empty() || REPRESENTATIONS.contains(&media))
}

fn not_acceptable() -> ApiError {
    let message = "406: Not Acceptable\n\nAvailable representations: text/plain, application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf";
    ApiError::new(406, "NotAcceptable", message).with_details("", "", "")
}

/// The kubelet's refusal as an API error (upstream `GenericHttpResponseChecker`).
async fn kubelet_error(info: &RequestInfo, response: Response<Body>) -> ApiError {
    let code = response.status().as_u16();
    let text = match crate::body::read_up_to(response.into_body(), MAX_ERROR).await {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(error) => return ApiError::internal(error),
    };
    match code {
        500 => ApiError::internal(text),
        400 => ApiError::bad_request(text),
        _ => generic_error(code, &info.name, text),
    }
}

/// As upstream's `NewGenericServerResponse`: the reason follows from the code, the text is a cause.
fn generic_error(code: u16, name: &str, text: String) -> ApiError {
    let (reason, message) = match code {
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", text.as_str()),
        404 => ("NotFound", "the server could not find the requested resource"),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        _ => ("", ""),
    };
    let known = !reason.is_empty();
    let message = if known {
        message.to_owned()
    } else {
        format!("the server responded with the status code {code} but did not return more information")
    };
    let message = format!("{message} ( pods/log {name})");
    let cause = k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
        reason: Some("UnexpectedServerResponse".to_owned()),
        message: Some(text),
        field: None,
    };
    ApiError::new(code, reason, message).with_details("", "pods/log", name).with_causes(vec![cause])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_checked_and_passed_on() {
        let options = Options::parse(&Query::parse(
            "follow=true&tailLines=5&container=c&sinceTime=2026-01-02T03:04:05Z",
        ));
        let options = options.expect("valid");
        assert!(options.validate().is_empty());
        assert_eq!(options.query(), "follow=true&sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=5");
    }

    #[test]
    fn whoever_takes_no_text_gets_none() {
        for (accept, expected) in
            [("text/html", false), ("text/html, */*;q=0.1", true), ("application/json", true)]
        {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepts_text(&headers), expected, "{accept}");
        }
        assert!(accepts_text(&HeaderMap::new()));
    }

    #[test]
    fn contradictions_are_refused() {
        for (query, expected) in [
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("stream=Stdout", "stream: Forbidden: may not be specified"),
        ] {
            let errors = Options::parse(&Query::parse(query)).expect("readable").validate();
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
        assert_eq!(Options::parse(&Query::parse("tailLines=x")).expect_err("no number").code(), 400);
    }
}
