//! `pods/exec`, `pods/attach`, `pods/portforward`: the client's upgraded connection, joined to one with the kubelet.

use api::status::ApiError;
use http::{Request, Response};

use super::{Streaming, container, node_of, relay};
use crate::body::Body;
use crate::query::{Query, is_true};
use crate::remote::describe;
use crate::request::RequestInfo;

/// Encodes as Go's `url.Values` does.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// What the kubelet is told of the client's options.
fn stream_query(subresource: &str, query: &Query) -> Result<String, ApiError> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if subresource == "portforward" {
        let mut ports = Vec::new();
        for port in query.all("ports").flat_map(|list| list.split(',')).filter(|port| !port.is_empty()) {
            let number: Result<u16, _> = port.parse();
            let number = number.map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {port:?}: invalid syntax"))
            })?;
            ports.push(number.to_string());
        }
        if !ports.is_empty() {
            pairs.push(("port", encode(&ports.join(","))));
        }
    } else {
        if subresource == "exec" {
            pairs.extend(query.all("command").map(|part| ("command", encode(part))));
        }
        for (name, parameter) in
            [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        {
            if query.first(name).is_some_and(is_true) {
                pairs.push((parameter, "1".to_owned()));
            }
        }
    }
    // Stable: the words of the command stay in order.
    pairs.sort_by_key(|(name, _)| *name);
    Ok(pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

impl Streaming {
    pub(super) async fn upgrade(
        &self,
        info: &RequestInfo,
        query: &Query,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let pod = self.pod(info, &info.name).await?;
        let (namespace, name) = (&info.namespace, &info.name);
        let path = match info.subresource.as_str() {
            "portforward" => format!("/portForward/{namespace}/{name}"),
            verb => {
                let asked = query.first("container").unwrap_or_default();
                format!("/{verb}/{namespace}/{name}/{}", container(&pod, asked)?)
            }
        };
        let Some(node) = node_of(&pod) else {
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        };
        let parameters = stream_query(&info.subresource, query)?;
        let location = self.kubelets.locate(node, "pods").await?;
        if !relay::wants_upgrade(request.headers()) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let uri = if parameters.is_empty() { path } else { format!("{path}?{parameters}") };
        *request.uri_mut() = uri.parse().map_err(ApiError::internal)?;
        let host = location.authority();
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::internal(format!("error sending request: {} \"https://{host}\": {error}", "Post"))
        };
        let connection =
            self.kubelets.connect(&location, true).await.map_err(|error| failed(&describe(&error)))?;
        relay::relay(connection, &host, request).await.map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_translated_for_the_kubelet() {
        for (subresource, query, expected) in [
            (
                "exec",
                "command=sh&command=-c&command=echo%20a%26b&container=c&stdin=true&stdout=true&stderr=false&tty=1",
                "command=sh&command=-c&command=echo+a%26b&input=1&output=1&tty=1",
            ),
            ("attach", "stdout=true&stderr=true&command=x", "error=1&output=1"),
            ("portforward", "ports=80&ports=81", "port=80%2C81"),
            ("portforward", "", ""),
        ] {
            assert_eq!(stream_query(subresource, &Query::parse(query)).as_deref(), Ok(expected));
        }
        assert_eq!(stream_query("portforward", &Query::parse("ports=x")).expect_err("no port").code(), 400);
    }
}
