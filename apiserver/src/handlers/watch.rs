//! WATCH: frames that every watcher of an encoding shares, until the time is over, the watcher lags or the client
//! leaves (upstream `endpoints/handlers/watch.go`).

use std::sync::Arc;
use std::time::Duration;

use api::schema;
use api::status::ApiError;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::Rng;
use serde_json::{Value, json};
use store::Revision;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::list::filter;
use super::options::ListOptions;
use super::render::{self, IncludeObject};
use crate::body::{Body, BoxError};
use crate::cacher::{
    self, CachedObject, Filter, Form, Kind, ReadAt, WatchEvent, WatchOptions, WatchStart, Watcher,
};
use crate::codec;
use crate::negotiate::{Accepted, Encoding, MetaVersion, Transform};
use crate::registry::Resource;
use crate::registry::storage::cache_error;
use crate::server::Context;

/// How often bookmarks are sent.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// Watches objects.
pub async fn watch(cx: &Context, resource: &Arc<Resource>) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_collection(resource)?;
    let accepted = match accepted.encoding {
        // There is no framing for YAML.
        Encoding::Yaml => return Err(crate::negotiate::not_acceptable_for_watch()),
        _ => Accepted { pretty: false, ..accepted },
    };
    let options = ListOptions::parse(cx, resource, true)?;
    let Some(cache) = &resource.cache else { return Err(super::method_not_allowed()) };
    let include = IncludeObject::parse(cx.query.first("includeObject"))?;
    let namespace = if resource.namespaced { cx.info.namespace.as_str() } else { "" };
    let watch = WatchOptions {
        start: start(&options).map_err(super::read::unreadable_version)?,
        filter: filter(resource, namespace, &options),
        bookmarks: options.bookmarks.then_some(BOOKMARKS),
    };
    let filter = watch.filter.clone();
    let opened = match resource.view() {
        Some(view) => match view.open(cache, watch).await {
            Ok(watch) => cache.watch(watch).await,
            Err(error) => Err(error),
        },
        None => cache.watch(watch).await,
    };
    let watcher = match opened {
        Ok(watcher) => Ok(watcher),
        // An old version is told by the first event, so that clients find it where they look for it.
        Err(error @ (cacher::Error::Expired { .. } | cacher::Error::Future { .. })) => {
            Err(cache_error(&error))
        }
        Err(error) => return Err(cache_error(&error)),
    };
    let render = Render { resource: Arc::clone(resource), accepted, include, columns_sent: false };
    let session = Session {
        watcher,
        filter,
        render,
        deadline: Instant::now() + duration(cx, &options),
        bookmarks: options.bookmarks,
        token: cx.server.token.clone(),
        over: false,
    };
    let frames = stream::unfold(session, |mut session| async move {
        let bytes = session.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), session))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let content_type = HeaderValue::from_static(accepted.encoding.stream_media_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

fn start(options: &ListOptions) -> Result<WatchStart, ApiError> {
    let at = match options.revision()? {
        None => ReadAt::Latest,
        Some(Revision(0)) => ReadAt::Any,
        Some(revision) => ReadAt::AtLeast(revision),
    };
    Ok(match (options.send_initial_events, at) {
        (Some(true), at) if options.bookmarks => WatchStart::InitialWithBookmark(at),
        (Some(true), at) => WatchStart::Initial(at),
        (Some(false), ReadAt::AtLeast(revision)) | (None, ReadAt::AtLeast(revision)) => {
            WatchStart::After(revision)
        }
        (Some(false), at) => WatchStart::Now(at),
        (None, at) => WatchStart::Initial(at),
    })
}

/// As long as the client asks for, else between the configured time and its double.
fn duration(cx: &Context, options: &ListOptions) -> Duration {
    match options.timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        None => cx.server.config.min_request_timeout.mul_f64(rand::rng().random_range(1.0..2.0)),
    }
}

/// One watch under way.
struct Session {
    watcher: Result<Watcher, ApiError>,
    /// What is wanted, for those events that the cache cannot judge.
    filter: Filter,
    render: Render,
    deadline: Instant,
    bookmarks: bool,
    token: CancellationToken,
    over: bool,
}

impl Session {
    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.over {
            if let Some(bytes) = self.step().await {
                return Some(bytes);
            }
        }
        None
    }

    /// The bytes of the next event; `None` if it concerns nobody, or at the end. Those that wait together are flushed
    /// together by the connection, which asks for more before it does.
    async fn step(&mut self) -> Option<Bytes> {
        let watcher = match &mut self.watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                self.over = true;
                return self.render.error(error);
            }
        };
        let goes_on = !self.token.is_cancelled() && Instant::now() < self.deadline;
        if goes_on && let Some(event) = watcher.try_next() {
            return self.take(Some(event)).await;
        }
        // The time is over even where events never cease.
        let event = tokio::select! {
            biased;
            () = self.token.cancelled() => None,
            () = tokio::time::sleep_until(self.deadline) => None,
            event = watcher.next() => Some(event),
        };
        let Some(event) = event else {
            self.over = true;
            let last = watcher.bookmark().filter(|_| self.bookmarks)?;
            return self.render.event(&last);
        };
        self.take(event).await
    }

    async fn take(&mut self, event: Option<Result<WatchEvent, cacher::Error>>) -> Option<Bytes> {
        let event = match (event, self.render.resource.view()) {
            (Some(Ok(event)), Some(view)) => view.event(&self.filter, event).await.transpose(),
            (None, _) => {
                self.over = true;
                return None;
            }
            (event, _) => event,
        };
        match event {
            Some(Ok(event)) => {
                let frame = self.render.event(&event);
                self.over = frame.is_none();
                frame
            }
            Some(Err(error)) => {
                self.over = true;
                self.render.error(&cache_error(&error))
            }
            // It is none for this watch.
            None => None,
        }
    }
}

/// How events look to this client.
struct Render {
    resource: Arc<Resource>,
    accepted: Accepted,
    include: IncludeObject,
    columns_sent: bool,
}

impl Render {
    fn event(&mut self, event: &WatchEvent) -> Option<Bytes> {
        if let WatchEvent::Bookmark { revision, initial_events_end } = event {
            let object = self.bookmark(*revision, *initial_events_end);
            return self.frame("BOOKMARK", &object);
        }
        if let Some((Transform::PartialObjectMetadataList, _)) = self.accepted.transform {
            // No object is a list: upstream gives up at the first one.
            return None;
        }
        if let Some((Transform::Table, version)) = self.accepted.transform {
            let value = render::internal(&self.resource, event.object()?).ok()?;
            return self.table(kind_name(event), value, version);
        }
        let (resource, accepted) = (Arc::clone(&self.resource), self.accepted);
        event.frame(frame_form(&resource, accepted), move |kind, object| {
            shared_frame(&resource, accepted, name_of(kind), object)
        })
    }

    fn table(&mut self, kind: &str, value: Value, version: MetaVersion) -> Option<Bytes> {
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        let meta = render::table_meta(&value);
        let shown = self.resource.as_ref().into();
        let table = render::table(&shown, &[value], meta, version, self.include, columns).ok()?;
        self.frame(kind, &table)
    }

    fn error(&self, error: &ApiError) -> Option<Bytes> {
        self.frame("ERROR", &codec::status(error))
    }

    /// A frame of its own.
    fn frame(&self, kind: &str, object: &Value) -> Option<Bytes> {
        match self.accepted.encoding {
            Encoding::Protobuf => codec::protobuf(object).ok().map(|bytes| protobuf_frame(kind, &bytes)),
            _ => Some(json_frame_of(kind, object.to_string().as_bytes())),
        }
    }

    /// An object with nothing but a version.
    fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self.accepted.transform {
            Some((Transform::Table, version)) => json!({
                "kind": "Table", "apiVersion": version.api_version(), "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata}}],
            }),
            Some((_, version)) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata,
            }),
            None => {
                let mut object = schema::type_for(&self.resource.gvk).map(|ty| ty.zero()).unwrap_or_default();
                object.insert("metadata".into(), metadata);
                let mut object = Value::Object(object);
                crate::object::set_kind(&mut object, &self.resource.gvk);
                object
            }
        }
    }
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Added => "ADDED",
        Kind::Modified => "MODIFIED",
        Kind::Deleted => "DELETED",
    }
}

fn kind_name(event: &WatchEvent) -> &'static str {
    match event {
        WatchEvent::Change { kind, .. } => name_of(*kind),
        WatchEvent::Initial(_) => "ADDED",
        WatchEvent::Bookmark { .. } => "BOOKMARK",
    }
}

/// Frames are shared by watchers with the same encoding, transform and served version.
fn frame_form(resource: &Resource, accepted: Accepted) -> Form {
    let partial = match accepted.transform {
        None => 0,
        Some((_, MetaVersion::V1)) => 1,
        Some((_, MetaVersion::V1Beta1)) => 2,
    };
    let encoding = u32::from(accepted.encoding == Encoding::Protobuf);
    Form(1 << 31 | encoding | partial << 1 | resource.served_form() << 3)
}

fn shared_frame(resource: &Resource, accepted: Accepted, kind: &str, object: &CachedObject) -> Bytes {
    if render::is_as_cached(resource, accepted) {
        return json_frame(kind, object.json_len(), |frame| object.write_json(0, frame));
    }
    match render::whole(resource, object, accepted) {
        Ok(bytes) if accepted.encoding == Encoding::Protobuf => protobuf_frame(kind, &bytes),
        Ok(bytes) => json_frame_of(kind, bytes.trim_ascii_end()),
        Err(error) => json_frame_of("ERROR", codec::status(&error).to_string().as_bytes()),
    }
}

fn json_frame_of(kind: &str, object: &[u8]) -> Bytes {
    json_frame(kind, object.len(), |frame| frame.extend_from_slice(object))
}

fn json_frame(kind: &str, length: usize, write_object: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::with_capacity(length + kind.len() + "{\"type\":\"\",\"object\":}\n".len());
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(kind.as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    write_object(&mut frame);
    frame.extend_from_slice(b"}\n");
    frame.into()
}

/// Four bytes of length, then `WatchEvent{1 type, 2 RawExtension{1 raw}}`.
fn protobuf_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut raw = Vec::with_capacity(object.len() + 8);
    render::field(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 32);
    render::field(&mut event, 1, kind.as_bytes());
    render::field(&mut event, 2, &raw);
    let mut frame = BytesMut::with_capacity(event.len() + 4);
    frame.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&event);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_upstreams_form() {
        assert_eq!(json_frame_of("ADDED", b"{}"), "{\"type\":\"ADDED\",\"object\":{}}\n");
        assert_eq!(protobuf_frame("A", b"xy").as_ref(), b"\0\0\0\x09\x0a\x01A\x12\x04\x0a\x02xy");
    }
}
