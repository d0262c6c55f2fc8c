//! Answers over WebSockets: a log as its bytes, a watch as one message an event (upstream `wsstream.Reader` and
//! `WatchServer.HandleWS`). What clients send is ignored; when either side closes, the stream is over.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::authn::WEBSOCKET_TOKEN_PREFIX;
use crate::body::{self, Body, BoxError};
use crate::request::RequestInfo;
use crate::streaming::relay::wants_upgrade;

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Bytes as they come.
    Binary,
    /// The same, in Base64.
    Base64,
    /// Events as JSON, a line each.
    Lines,
    /// Events as protobuf, each behind its length.
    Prefixed,
}

/// What a client is told whose handshake is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

/// A client that wants its answer over a WebSocket.
pub(super) struct Socket {
    client: OnUpgrade,
    request: HeaderMap,
    is_log: bool,
}

impl Socket {
    /// The socket that a request asks for, if it is a request that can be answered over one.
    pub(super) fn wanted(request: &mut Request<Body>, info: &RequestInfo) -> Option<Self> {
        let is_log = info.resource == "pods" && info.subresource == "log" && info.group.is_empty();
        if !(is_log || info.verb == "watch") {
            return None;
        }
        let headers = request.headers();
        let named =
            headers.get(UPGRADE).is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if !named || !wants_upgrade(headers) {
            return None;
        }
        let names = [ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION];
        let kept = names.into_iter().filter_map(|name| Some((name.clone(), headers.get(&name)?.clone())));
        Some(Self { request: kept.collect(), client: hyper::upgrade::on(request), is_log })
    }

    /// Sends the body of `response` over the socket until it ends, the client leaves, or `token` is cancelled. An
    /// answer that is no stream stays as it is.
    pub(super) fn carry(self, response: Response<Body>, token: CancellationToken) -> Response<Body> {
        if response.status() != StatusCode::OK {
            return response;
        }
        let protocol = match self.handshake() {
            Ok(protocol) => protocol,
            Err(Refusal(status, text)) => {
                let mut refused = Response::new(body::full(text));
                *refused.status_mut() = status;
                return refused;
            }
        };
        let (parts, stream) = response.into_parts();
        let is_json =
            parts.headers.get(CONTENT_TYPE).is_some_and(|of| of.as_bytes().starts_with(b"application/json"));
        let framing = match (self.is_log, protocol.as_deref(), is_json) {
            (true, Some("base64.binary.k8s.io"), _) => Framing::Base64,
            (true, ..) => Framing::Binary,
            (false, _, true) => Framing::Lines,
            (false, _, false) => Framing::Prefixed,
        };
        let client = self.client;
        tokio::spawn(
            async move {
                let sent = async { send(client.await?, stream, framing).await };
                let outcome = tokio::select! {
                    outcome = sent => outcome,
                    () = token.cancelled() => return,
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, "WebSocket ended");
                }
            }
            .in_current_span(),
        );
        switching(&self.request, protocol.as_deref())
    }

    /// Which protocol is spoken; `None`: none was asked for.
    fn handshake(&self) -> Result<Option<String>, Refusal> {
        let text = |name| self.request.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text(SEC_WEBSOCKET_VERSION) != "13" {
            return Err(Refusal(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version".to_owned()));
        }
        if text(SEC_WEBSOCKET_KEY).is_empty() {
            return Err(Refusal(StatusCode::BAD_REQUEST, "mismatch challenge/response".to_owned()));
        }
        let asked: Vec<&str> = text(SEC_WEBSOCKET_PROTOCOL)
            .split(',')
            .map(str::trim)
            // A token that is sent as a protocol is none.
            .filter(|name| !name.is_empty() && !name.starts_with(WEBSOCKET_TOKEN_PREFIX))
            .collect();
        if !self.is_log {
            let origin = text(ORIGIN);
            return match (origin.parse::<Uri>(), asked.as_slice()) {
                _ if origin.is_empty() => Err(Refusal(StatusCode::FORBIDDEN, "null origin".to_owned())),
                (Err(error), _) => Err(Refusal(StatusCode::FORBIDDEN, error.to_string())),
                (Ok(_), []) => Ok(None),
                (Ok(_), [one]) => Ok(Some((*one).to_owned())),
                (Ok(_), _) => {
                    Err(Refusal(StatusCode::BAD_REQUEST, "missing or bad WebSocket protocol".to_owned()))
                }
            };
        }
        const SPOKEN: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];
        match asked.iter().find(|name| SPOKEN.contains(name)) {
            Some(name) => Ok(Some((*name).to_owned())),
            None if asked.is_empty() => Ok(None),
            None => {
                let asked = asked.join(" ");
                let why = format!(
                    "requested protocol(s) are not supported: [{asked}]; supports [ {}]",
                    SPOKEN.join(" ")
                );
                Err(Refusal(StatusCode::FORBIDDEN, why))
            }
        }
    }
}

fn switching(request: &HeaderMap, protocol: Option<&str>) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let key = request.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Sends a stream to its end.
async fn send(client: Upgraded, mut stream: Body, framing: Framing) -> Result<(), BoxError> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
    let (mut out, mut incoming) = socket.split();
    let mut cutter = Cutter { framing, rest: BytesMut::new() };
    if let Some(hello) = cutter.hello() {
        out.send(hello).await?;
    }
    loop {
        let frame = tokio::select! {
            // Reading also answers pings; the end of it is the client's leave.
            message = incoming.next() => match message {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error.into()),
            },
            frame = stream.frame() => frame,
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame?.into_data() else { continue };
        for message in cutter.cut(&data) {
            out.send(message).await?;
        }
    }
    match out.close().await {
        Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cuts a stream into messages.
struct Cutter {
    framing: Framing,
    rest: BytesMut,
}

impl Cutter {
    /// The empty message that goes ahead of a log.
    fn hello(&self) -> Option<Message> {
        match self.framing {
            Framing::Binary => Some(Message::Binary(Bytes::new())),
            Framing::Base64 => Some(Message::text("")),
            Framing::Lines | Framing::Prefixed => None,
        }
    }

    fn cut(&mut self, data: &[u8]) -> VecDeque<Message> {
        match self.framing {
            Framing::Binary => [Message::Binary(Bytes::copy_from_slice(data))].into(),
            Framing::Base64 => [Message::text(BASE64.encode(data))].into(),
            Framing::Lines | Framing::Prefixed => {
                self.rest.extend_from_slice(data);
                std::iter::from_fn(|| self.event()).collect()
            }
        }
    }

    /// The next whole event.
    fn event(&mut self) -> Option<Message> {
        if self.framing == Framing::Lines {
            let end = memchr::memchr(b'\n', &self.rest)?;
            let line = self.rest.split_to(end + 1);
            return Some(Message::text(String::from_utf8_lossy(&line).into_owned()));
        }
        let length = u32::from_be_bytes(self.rest.get(..4)?.try_into().ok()?) as usize;
        if self.rest.len() < 4 + length {
            return None;
        }
        self.rest.advance(4);
        Some(Message::Binary(self.rest.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(is_log: bool, headers: &[(&'static str, &'static str)]) -> Socket {
        let mut request = Request::new(body::empty());
        let always = [("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-version", "13")];
        for (name, value) in always.iter().chain(headers) {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let (resource, subresource, verb) =
            if is_log { ("pods", "log", "get") } else { ("pods", "", "watch") };
        let info = RequestInfo {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            ..RequestInfo::default()
        };
        Socket::wanted(&mut request, &info).expect("a WebSocket")
    }

    #[test]
    fn handshakes_choose_a_protocol_or_are_refused() {
        const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        const ORIGIN: (&str, &str) = ("origin", "https://localhost");
        let protocol = |text| ("sec-websocket-protocol", text);
        for (is_log, headers, expected) in [
            (true, vec![KEY], Ok(None)),
            (true, vec![KEY, protocol("x, binary.k8s.io")], Ok(Some("binary.k8s.io"))),
            (true, vec![KEY, protocol("base64.binary.k8s.io")], Ok(Some("base64.binary.k8s.io"))),
            (true, vec![KEY, protocol("base64url.bearer.authorization.k8s.io.YQ")], Ok(None)),
            (true, vec![KEY, protocol("v5.channel.k8s.io")], Err(403)),
            (true, vec![], Err(400)),
            (true, vec![KEY, ("sec-websocket-version", "8")], Err(400)),
            (false, vec![KEY], Err(403)),
            (false, vec![KEY, ORIGIN], Ok(None)),
            (false, vec![KEY, ORIGIN, protocol("a")], Ok(Some("a"))),
            (false, vec![KEY, ORIGIN, protocol("a, b")], Err(400)),
        ] {
            let found = socket(is_log, &headers).handshake();
            let found = found.as_ref().map(Option::as_deref).map_err(|refusal| refusal.0.as_u16());
            assert_eq!(found, expected, "{is_log} {headers:?}");
        }
        let answer = switching(&socket(true, &[KEY]).request, None);
        // The pair of RFC 6455.
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_event_is_a_message_however_it_arrives() {
        let cut = |framing, pieces: &[&[u8]]| -> Vec<Message> {
            let mut cutter = Cutter { framing, rest: BytesMut::new() };
            pieces.iter().flat_map(|piece| cutter.cut(piece)).collect()
        };
        let lines = cut(Framing::Lines, &[b"{\"a\":1}\n{\"b\"", b":2}", b"\n"]);
        assert_eq!(lines, [Message::text("{\"a\":1}\n"), Message::text("{\"b\":2}\n")]);
        let prefixed = cut(Framing::Prefixed, &[b"\0\0\0\x02ab\0\0", b"\0\x01c"]);
        assert_eq!(prefixed, [Message::binary(&b"ab"[..]), Message::binary(&b"c"[..])]);
        assert_eq!(cut(Framing::Base64, &[b"one\n"]), [Message::text("b25lCg==")]);
        assert_eq!(cut(Framing::Binary, &[b"one\n"]), [Message::binary(&b"one\n"[..])]);
    }
}
