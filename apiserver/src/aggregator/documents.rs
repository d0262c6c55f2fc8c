//! What other servers say of their APIs as OpenAPI (upstream `controllers/openapi{,v3}/aggregator`): version 2 becomes
//! part of this server's document, a document of version 3 is passed on.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

use super::availability::aggregator;
use super::{Aggregator, Backend};
use crate::body::{self, Body};
use crate::openapi::{Foreign, Publisher};

/// Makes what other servers say part of what is published.
pub(super) struct Documents {
    publisher: Publisher,
    /// What the last document of version 2 of each server was called.
    seen: Mutex<HashMap<String, Option<HeaderValue>>>,
}

impl Documents {
    /// Nothing has been fetched yet.
    pub fn new(publisher: Publisher) -> Self {
        Self { publisher, seen: Mutex::default() }
    }

    /// Leaves out what a server said.
    pub fn forget(&self, name: &str) {
        self.seen.lock().remove(name);
        self.publisher.forget_foreign(name);
    }

    /// Fetches what a server says now.
    pub async fn refresh(&self, backend: &Backend) {
        let part = match self.part(backend).await {
            Ok(part) => part,
            Err(why) => {
                tracing::debug!(api_service = backend.name, why, "could not fetch OpenAPI of version 3");
                None
            }
        };
        let foreign = match self.foreign(backend).await {
            Ok(foreign) => foreign,
            Err(why) => {
                tracing::debug!(api_service = backend.name, why, "could not fetch OpenAPI of version 2");
                None
            }
        };
        self.publisher.set_foreign(&backend.name, part, foreign);
    }

    /// The name and state of the document of version 3.
    async fn part(&self, backend: &Backend) -> Result<Option<(String, String)>, String> {
        let answer = backend.get("/openapi/v3", "application/json", &aggregator()).await?;
        if answer.status != 200 {
            return Err(format!("it answers {}", answer.status));
        }
        let index: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let part = backend.part();
        let address = index["paths"][&part]["serverRelativeURL"].as_str();
        let state =
            address.map(|address| address.split_once("hash=").map_or("", |(_, hash)| hash).to_owned());
        Ok(state.map(|state| (part, state)))
    }

    /// What version 2 says, if that is news.
    async fn foreign(&self, backend: &Backend) -> Result<Option<Foreign>, String> {
        let answer = backend.get("/openapi/v2", "application/json", &aggregator()).await?;
        if answer.status != 200 {
            return Err(format!("it answers {}", answer.status));
        }
        let state = answer.headers.get(ETAG).cloned();
        let known = self.seen.lock().insert(backend.name.clone(), state.clone());
        if state.is_some() && known == Some(state) {
            return Ok(None);
        }
        let document: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        Ok(Some(Foreign::of(document, &format!("/{}", backend.part()))))
    }
}

impl Backend {
    /// The name of its document of version 3.
    fn part(&self) -> String {
        format!("apis/{}/{}", self.group, self.version)
    }

    /// The document of version 3, as the server answers it.
    pub async fn document(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        let asked = self.get(&format!("/openapi/v3/{}", self.part()), accept, &aggregator()).await;
        let (status, headers, bytes) = match asked {
            Ok(answer) => (answer.status, answer.headers, answer.body),
            Err(why) => {
                tracing::debug!(api_service = self.name, why, "could not fetch OpenAPI of version 3");
                (503, HeaderMap::new(), Bytes::from_static(b"service unavailable\n"))
            }
        };
        let mut response = Response::new(body::full(bytes));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        for name in [CONTENT_TYPE, ETAG] {
            if let Some(value) = headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

impl Aggregator {
    /// The server that has a document of version 3, if it is another one.
    #[must_use]
    pub fn document_backend(&self, part: &str) -> Option<std::sync::Arc<Backend>> {
        let backend = self.backend(&format!("/{part}"))?;
        (backend.part() == part).then_some(backend)
    }
}
