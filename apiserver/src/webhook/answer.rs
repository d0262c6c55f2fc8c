//! What a webhook answered: an object, or an error (upstream `rest.Request.transformResponse` and
//! `errors.NewGenericServerResponse`).

use serde_json::Value;

/// How much of an unexpected answer is told.
const SHOWN: usize = 2048;

/// Whether an answer is no error, by its code.
pub fn check(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<(), String> {
    if (200..=206).contains(&status) { Ok(()) } else { Err(failure(status, content_type, body)) }
}

/// The object that was answered, or why there is none.
pub fn read(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Value, String> {
    check(status, content_type, body)?;
    if body.is_empty() {
        let content_type = content_type.unwrap_or("application/json");
        return Err(format!("0-length response with status code: {status} and content type: {content_type}"));
    }
    let object: Value = serde_json::from_slice(body).map_err(|error| {
        let why = api::codec::json::syntax_error(body, &error);
        format!("couldn't get version/kind; json parse error: {why}")
    })?;
    if !object.is_object() {
        let kind = api::codec::json::kind_of(&object);
        return Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {kind} into Go value of type \
             struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" }}"
        ));
    }
    match failed_status(&object) {
        Some(message) => Err(message),
        None => Ok(object),
    }
}

/// The message of a Status that is no success.
fn failed_status(object: &Value) -> Option<String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let fails = text("kind") == "Status" && text("apiVersion") == "v1" && text("status") != "Success";
    fails.then(|| text("message").to_owned())
}

/// An answer that is an error by its code.
fn failure(status: u16, content_type: Option<&str>, body: &[u8]) -> String {
    let object: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(message) = object.as_ref().and_then(failed_status) {
        return message;
    }
    let media = content_type.map(|value| value.split(';').next().unwrap_or_default().trim());
    let is_text = media.is_none_or(|media| media.is_empty() || media.starts_with("text/"));
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let said = if is_text { shown.trim() } else { "unknown" };
    let known = match status {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 | 415 => said,
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 if said.is_empty() || said == "unknown" => {
            "the server was unable to respond with a content type that the client supports"
        }
        406 => said,
        409 => "the server reported a conflict",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
        }
        500.. => {
            return format!("an error on the server ({said:?}) has prevented the request from succeeding");
        }
        _ => {
            return format!(
                "the server responded with the status code {status} but did not return more information"
            );
        }
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_objects_or_errors_in_upstreams_words() {
        let json = Some("application/json");
        for (status, content_type, body, expected) in [
            (200, json, r#"{"a":1}"#, Ok(r#"{"a":1}"#)),
            (200, Some("text/plain; charset=utf-8"), r#"{"a":1}"#, Ok(r#"{"a":1}"#)),
            (
                200,
                json,
                "",
                Err("0-length response with status code: 200 and content type: application/json"),
            ),
            (
                200,
                json,
                "no",
                Err("couldn't get version/kind; json parse error: invalid character 'o' in literal null \
                     (expecting 'u')"),
            ),
            (
                500,
                None,
                "oh\n",
                Err("an error on the server (\"oh\") has prevented the request from succeeding"),
            ),
            (
                500,
                json,
                "{}",
                Err("an error on the server (\"unknown\") has prevented the request from succeeding"),
            ),
            (404, None, "404 page not found", Err("the server could not find the requested resource")),
            (
                403,
                json,
                r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no"}"#,
                Err("no"),
            ),
            (
                302,
                None,
                "",
                Err("the server responded with the status code 302 but did not return more information"),
            ),
        ] {
            let found = read(status, content_type, body.as_bytes()).map(|object| object.to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{body}");
        }
    }
}
