//! Links of what is proxied, made to lead back through the proxy: in HTML and in `Location` (upstream
//! `util/proxy/transport.go`). HTML is rewritten as it streams; what is compressed stays compressed.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::status::ApiError;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http_body::Frame;
use http_body_util::BodyExt;
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{MemorySettings, OutputSink, element};

use crate::body::{Body, BoxError};

/// So much of a single tag or text is kept in memory while its end is awaited.
const MAX_MEMORY: usize = 1 << 20;

/// Attributes that are URLs, by element.
const URLS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where links lead.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The path of the proxy, which ours to the backend is appended to.
    pub(super) prefix: String,
    /// Host and port of the backend.
    pub(super) backend: String,
    /// Host and port as the client names the server.
    pub(super) asked: String,
}

impl Links {
    /// Makes the links of an answer lead back through the proxy.
    ///
    /// # Errors
    /// The backend redirects to what is no URL.
    pub(super) fn rewrite(self, mut response: Response<Body>) -> Result<Response<Body>, ApiError> {
        if let Some(location) = response.headers().get(LOCATION) {
            let unusable = |why: &dyn std::fmt::Display| {
                ApiError::internal(format!("error trying to parse Location header: {why}"))
            };
            let location = location.to_str().map_err(|error| unusable(&error))?;
            let lead = escape(&self.lead(location));
            let value = HeaderValue::from_str(&lead).map_err(|error| unusable(&error))?;
            response.headers_mut().insert(LOCATION, value);
            return Ok(response);
        }
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text(CONTENT_TYPE).split(';').next().map(str::trim) != Some("text/html") {
            return Ok(response);
        }
        let Some(pipe) = Pipe::new(text(CONTENT_ENCODING), Arc::new(self)) else { return Ok(response) };
        response.headers_mut().remove(CONTENT_LENGTH);
        Ok(response.map(|backend| Rewritten { backend, pipe: Some(pipe) }.boxed_unsync()))
    }

    /// Where a link leads, seen from the client.
    fn lead(&self, link: &str) -> String {
        let Some((origin, host, rest)) = split(link) else { return link.to_owned() };
        let elsewhere = !host.is_empty() && host != self.backend && host != self.asked;
        if elsewhere || !rest.starts_with('/') {
            return link.to_owned();
        }
        let origin = if host == self.asked { origin } else { "" };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, behind) = rest.split_at(end);
        if path.starts_with(&self.prefix) {
            return format!("{origin}{rest}");
        }
        let slash = if path.ends_with('/') && path != "/" { "/" } else { "" };
        let root = if path == "/" { "/" } else { slash };
        format!("{origin}{}{}{root}{behind}", self.prefix, clean(path))
    }
}

/// A URL as its origin (`http://host`), host, and the rest; `None` for what has no path, as `mailto:`.
fn split(link: &str) -> Option<(&str, &str, &str)> {
    let scheme = link.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
    let after = match scheme {
        Some(at) if at > 0 && link[at..].starts_with(':') => at + 1,
        _ => 0,
    };
    let Some(authority) = link[after..].strip_prefix("//") else {
        return (after == 0).then_some(("", "", link));
    };
    let length = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    let (host, rest) = authority.split_at(length);
    Some((&link[..link.len() - rest.len()], host.rsplit('@').next().unwrap_or(host), rest))
}

/// The path without `.`, `..` and empty parts, and without a slash at its end.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    kept.iter().flat_map(|part| ["/", part]).collect()
}

/// What may not stand in a header's URL, escaped.
fn escape(url: &str) -> String {
    let bare = |byte: u8| {
        byte > b' '
            && byte < 0x7f
            && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    url.bytes()
        .map(|byte| if bare(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Rewrites what is written to it, and keeps the outcome until it is taken.
struct Html<W: Write + Send + 'static>(HtmlRewriter<'static, Sink<W>>);

/// Where rewritten HTML goes.
struct Sink<W>(Shared<W>);

type Shared<W> = Arc<parking_lot::Mutex<W>>;

impl<W: Write> OutputSink for Sink<W> {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        // Writing into memory does not fail.
        let _ = self.0.lock().write_all(chunk);
    }
}

impl<W: Write + Send + 'static> Html<W> {
    fn new(links: Arc<Links>, out: Shared<W>) -> Self {
        let every = element!("*", move |element| {
            let urls = URLS.iter().find(|(name, _)| *name == element.tag_name()).map(|(_, urls)| *urls);
            for name in urls.unwrap_or_default() {
                if let Some(link) = element.get_attribute(name) {
                    let lead = links.lead(&link);
                    if lead != link {
                        element.set_attribute(name, &lead)?;
                    }
                }
            }
            Ok(())
        });
        let settings = Settings {
            element_content_handlers: vec![every],
            memory_settings: MemorySettings {
                max_allowed_memory_usage: MAX_MEMORY,
                ..MemorySettings::default()
            },
            ..Settings::new_send()
        };
        Self(HtmlRewriter::new(settings, Sink(out)))
    }
}

impl<W: Write + Send + 'static> Write for Html<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The way of a page: decompressed, rewritten, compressed.
enum Pipe {
    Plain(Html<Vec<u8>>, Shared<Vec<u8>>),
    Gzip(GzDecoder<Html<GzEncoder<Vec<u8>>>>, Shared<GzEncoder<Vec<u8>>>),
    Deflate(DeflateDecoder<Html<DeflateEncoder<Vec<u8>>>>, Shared<DeflateEncoder<Vec<u8>>>),
}

impl Pipe {
    /// `None`: nobody here understands this encoding.
    fn new(encoding: &str, links: Arc<Links>) -> Option<Self> {
        fn shared<W>(out: W) -> Shared<W> {
            Arc::new(parking_lot::Mutex::new(out))
        }
        Some(match encoding {
            "" => {
                let out = shared(Vec::new());
                Self::Plain(Html::new(links, Arc::clone(&out)), out)
            }
            "gzip" => {
                let out = shared(GzEncoder::new(Vec::new(), Compression::default()));
                Self::Gzip(GzDecoder::new(Html::new(links, Arc::clone(&out))), out)
            }
            "deflate" => {
                let out = shared(DeflateEncoder::new(Vec::new(), Compression::default()));
                Self::Deflate(DeflateDecoder::new(Html::new(links, Arc::clone(&out))), out)
            }
            _ => return None,
        })
    }

    /// What can be sent after this piece of the page.
    fn push(&mut self, data: &[u8]) -> io::Result<Bytes> {
        Ok(match self {
            Self::Plain(html, out) => {
                html.write_all(data)?;
                std::mem::take(&mut *out.lock())
            }
            Self::Gzip(html, out) => {
                html.write_all(data)?;
                std::mem::take(out.lock().get_mut())
            }
            Self::Deflate(html, out) => {
                html.write_all(data)?;
                std::mem::take(out.lock().get_mut())
            }
        }
        .into())
    }

    /// What is sent last.
    fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Plain(html, out) => {
                html.0.end().map_err(io::Error::other)?;
                std::mem::take(&mut *out.lock())
            }
            Self::Gzip(html, out) => {
                html.finish()?.0.end().map_err(io::Error::other)?;
                let mut out = out.lock();
                out.try_finish()?;
                std::mem::take(out.get_mut())
            }
            Self::Deflate(html, out) => {
                html.finish()?.0.end().map_err(io::Error::other)?;
                let mut out = out.lock();
                out.try_finish()?;
                std::mem::take(out.get_mut())
            }
        }
        .into())
    }
}

/// A page on its way.
struct Rewritten {
    backend: Body,
    pipe: Option<Pipe>,
}

impl http_body::Body for Rewritten {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(mut pipe) = self.pipe.take() else { return Poll::Ready(None) };
            let data = match Pin::new(&mut self.backend).poll_frame(cx) {
                Poll::Pending => {
                    self.pipe = Some(pipe);
                    return Poll::Pending;
                }
                Poll::Ready(Some(frame)) => {
                    let piece = match frame?.into_data() {
                        Ok(data) => pipe.push(&data)?,
                        // Trailers are about what was sent, not about what it has become.
                        Err(_) => Bytes::new(),
                    };
                    self.pipe = Some(pipe);
                    piece
                }
                Poll::Ready(None) => pipe.finish()?,
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read;

    use super::*;

    fn links() -> Links {
        Links { prefix: "/p/node1:10250".into(), backend: "10.0.0.7:80".into(), asked: "api:6443".into() }
    }

    // After upstream's TestProxyTransport and TestRewriteResponse.
    #[test]
    fn links_lead_back_through_the_proxy_if_they_lead_to_the_backend() {
        for (link, lead) in [
            ("kubelet.log", "kubelet.log"),
            ("/google.log", "/p/node1:10250/google.log"),
            ("/google.log/", "/p/node1:10250/google.log/"),
            ("/", "/p/node1:10250/"),
            ("/a/../b//c?x=/y#z", "/p/node1:10250/b/c?x=/y#z"),
            ("http://google.com/kubernetes.js", "http://google.com/kubernetes.js"),
            ("http://10.0.0.7:80/kubernetes.js", "/p/node1:10250/kubernetes.js"),
            ("//10.0.0.7:80/a", "/p/node1:10250/a"),
            ("http://api:6443/redirected/", "http://api:6443/p/node1:10250/redirected/"),
            ("/p/node1:10250/google.log", "/p/node1:10250/google.log"),
            ("mailto:a@b.c", "mailto:a@b.c"),
            ("#top", "#top"),
            ("", ""),
        ] {
            assert_eq!(links().lead(link), lead, "{link}");
        }
        assert_eq!(escape("/t/%00<script>alert(1)</script>/"), "/t/%00%3Cscript%3Ealert(1)%3C/script%3E/");
    }

    const PAGE: &str = "<html><!-- <a href='/no'> --><body><pre><a href=\"k.log\">k</a><A HREF='/g.log'>g</A>\
                        <img src=\"/i.jpg\"/><p title=\"/no\"></pre><script>x = '<a href=\"/no\">'</script></body></html>";
    const SEEN: &str = "<html><!-- <a href='/no'> --><body><pre><a href=\"k.log\">k</a><A HREF=\"/p/node1:10250/g.log\">g</A>\
                        <img src=\"/p/node1:10250/i.jpg\" /><p title=\"/no\"></pre><script>x = '<a href=\"/no\">'</script></body></html>";

    #[tokio::test]
    async fn pages_are_rewritten_in_any_encoding() {
        let mut gzip = Vec::new();
        read::GzEncoder::new(PAGE.as_bytes(), Compression::default()).read_to_end(&mut gzip).expect("memory");
        let mut deflate = Vec::new();
        read::DeflateEncoder::new(PAGE.as_bytes(), Compression::default())
            .read_to_end(&mut deflate)
            .expect("memory");
        for (kind, encoding, sent, changed) in [
            ("text/html; charset=utf-8", "", PAGE.as_bytes().to_vec(), true),
            ("text/html", "gzip", gzip, true),
            ("text/html", "deflate", deflate, true),
            ("text/html", "br", PAGE.as_bytes().to_vec(), false),
            ("text/plain", "", PAGE.as_bytes().to_vec(), false),
        ] {
            // In pieces, as it would come from far away.
            let pieces = sent.chunks(7).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let mut response = Response::new(crate::body::segments(pieces));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if !encoding.is_empty() {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            let answer = links().rewrite(response).expect("a page");
            let body = answer.into_body().collect().await.expect("a whole page").to_bytes();
            let mut page = String::new();
            match encoding {
                "gzip" => read::GzDecoder::new(&body[..]).read_to_string(&mut page).expect("gzip"),
                "deflate" => read::DeflateDecoder::new(&body[..]).read_to_string(&mut page).expect("deflate"),
                _ => (&body[..]).read_to_string(&mut page).expect("text"),
            };
            assert_eq!(page, if changed { SEEN } else { PAGE }, "{kind} {encoding}");
        }
    }
}
