//! What a handler knows about the request it answers.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::codec::verbatim::Verbatim;
use api::status::ApiError;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use serde_json::Value;

use super::Server;
use crate::audit::Record;
use crate::authn::User;
use crate::negotiate::{self, Accepted, Restrictions};
use crate::query::Query;
use crate::registry::Resource;
use crate::request::RequestInfo;

/// A request after authentication and authorization.
pub struct Context {
    /// The server.
    pub server: Arc<Server>,
    /// What is asked for.
    pub info: Arc<RequestInfo>,
    /// Who asks.
    pub user: Arc<User>,
    /// HTTP method.
    pub method: Method,
    /// Query parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// What is written down of the request, if it is.
    pub record: Option<Arc<Record>>,
    warnings: Mutex<Vec<String>>,
    annotations: Mutex<BTreeMap<String, String>>,
    texts: OnceLock<Vec<Verbatim>>,
}

impl Context {
    /// Puts a request together.
    #[must_use]
    pub fn new(
        server: Arc<Server>,
        info: Arc<RequestInfo>,
        user: Arc<User>,
        method: Method,
        query: Query,
        headers: HeaderMap,
    ) -> Self {
        Self {
            server,
            info,
            user,
            method,
            query,
            headers,
            record: None,
            warnings: Mutex::default(),
            annotations: Mutex::default(),
            texts: OnceLock::new(),
        }
    }

    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The warnings so far; the list is empty afterwards.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// Adds annotations to what the audit log says of the request.
    pub fn annotate(&self, annotations: BTreeMap<String, String>) {
        if !annotations.is_empty() {
            self.annotations.lock().extend(annotations);
        }
    }

    /// Keeps the texts of embedded objects in the body, to be stored as they are.
    pub fn keep_texts(&self, texts: Vec<Verbatim>) {
        if !texts.is_empty() {
            // There is but one body.
            let _ = self.texts.set(texts);
        }
    }

    /// The texts of embedded objects in the body.
    #[must_use]
    pub fn texts(&self) -> &[Verbatim] {
        self.texts.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Tells the audit log what the client sent.
    pub fn record_body(&self, object: &Value) {
        if let Some(record) = &self.record {
            record.request_object(object);
        }
    }

    /// What the audit log is to say of the request.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.annotations.lock().clone()
    }

    /// The encoding of an answer that can be a table or metadata only.
    pub fn accept(&self) -> Result<Accepted, ApiError> {
        negotiate::accept(&self.headers, &self.query, Restrictions::RESOURCE)
    }

    /// As [`Context::accept`], for objects of a resource.
    pub fn accept_for(&self, resource: &Resource) -> Result<Accepted, ApiError> {
        let compiled = resource.custom.is_none();
        negotiate::accept(&self.headers, &self.query, Restrictions { compiled, ..Restrictions::RESOURCE })
    }

    /// As [`Context::accept_for`], for lists and watches.
    pub fn accept_collection(&self, resource: &Resource) -> Result<Accepted, ApiError> {
        let compiled = resource.custom.is_none();
        negotiate::accept(&self.headers, &self.query, Restrictions { compiled, ..Restrictions::COLLECTION })
    }

    /// Whether nothing is to be stored (`dryRun=All`); 422 for other values.
    pub fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|value| value == "All")
    }
}
