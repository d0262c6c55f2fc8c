//! YAML events to values.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};

use super::resolve::{Scalar, resolve};
use crate::gofmt::syntax_with_keys;
use crate::schema::scalar::go_quote;

/// Nesting deeper than this is refused.
const MAX_DEPTH: usize = 128;

/// Why YAML text could not be read, in go-yaml's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A document and what a strict reader would have refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// The value.
    pub value: Value,
    /// Keys given twice: `line 6: key "k" already set in map`.
    pub duplicates: Vec<String>,
}

impl Loaded {
    /// The error of a strict reader, if it has one.
    #[must_use]
    pub fn strict_error(&self) -> Option<String> {
        (!self.duplicates.is_empty())
            .then(|| format!("yaml: unmarshal errors:\n  {}", self.duplicates.join("\n  ")))
    }
}

/// Reads the first document. No document at all is null.
///
/// # Errors
/// When the text is not YAML, or cannot be JSON.
pub fn decode(text: &[u8]) -> Result<Value, Error> {
    load(text).map(|loaded| loaded.value)
}

/// Reads the first document and notes duplicate keys.
///
/// # Errors
/// When the text is not YAML, or cannot be JSON.
pub fn load(text: &[u8]) -> Result<Loaded, Error> {
    Ok(documents(text, true)?.into_iter().next().unwrap_or_default())
}

/// Reads all documents; empty ones are left out.
///
/// # Errors
/// When the text is not YAML, or cannot be JSON.
pub fn decode_documents(text: &[u8]) -> Result<Vec<Value>, Error> {
    let values = documents(text, false)?.into_iter().map(|loaded| loaded.value);
    Ok(values.filter(|value| !value.is_null()).collect())
}

/// An event and the line its node begins on.
type Line<'a> = (Event<'a>, usize);

fn documents(text: &[u8], first_only: bool) -> Result<Vec<Loaded>, Error> {
    let text = std::str::from_utf8(text).map_err(|_| Error("yaml: invalid leading UTF-8 octet".into()))?;
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut out = Vec::new();
    let mut events: Vec<Line<'_>> = Vec::new();
    let mut depth = 0usize;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(&error))?;
        match event {
            Event::DocumentStart(..) => events.clear(),
            Event::DocumentEnd => {
                out.push(Loader::new(&events).document()?);
                if first_only {
                    break;
                }
            }
            Event::UnresolvedAlias(name) => {
                return Err(Error(format!("yaml: unknown anchor '{name}' referenced")));
            }
            event @ (Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd) => {
                match event {
                    Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                    Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > MAX_DEPTH {
                    return Err(Error(format!("yaml: exceeded max depth of {MAX_DEPTH}")));
                }
                events.push((event, span.start.line()));
            }
            // The stream itself, and comments.
            _ => {}
        }
    }
    Ok(out)
}

fn syntax_error(error: &ScanError) -> Error {
    let info = error.info();
    // The parser's words where they differ from libyaml's.
    let info = match info.as_str() {
        info if info.contains("tab") => "found character that cannot start any token",
        info if info.contains("mapping values are not allowed") => {
            "mapping values are not allowed in this context"
        }
        info => info,
    };
    let line = error.marker().line();
    Error(if line > 1 { format!("yaml: line {line}: {info}") } else { format!("yaml: {info}") })
}

/// Builds the value of one document out of its events.
struct Loader<'e, 'a> {
    events: &'e [Line<'a>],
    at: usize,
    anchors: HashMap<usize, usize>,
    /// Anchors whose nodes are being built: an alias to one of them would never end.
    open: HashSet<usize>,
    depth: usize,
    decoded: u64,
    in_alias: u32,
    aliased: u64,
    duplicates: Vec<String>,
}

impl<'e, 'a> Loader<'e, 'a> {
    fn new(events: &'e [Line<'a>]) -> Self {
        let anchors = events
            .iter()
            .enumerate()
            .filter_map(|(at, (event, _))| match event {
                Event::Scalar(_, _, anchor, _)
                | Event::SequenceStart(_, anchor, _)
                | Event::MappingStart(_, anchor, _) => (*anchor > 0).then_some((*anchor, at)),
                _ => None,
            })
            .collect();
        Self {
            events,
            at: 0,
            anchors,
            open: HashSet::new(),
            depth: 0,
            decoded: 0,
            in_alias: 0,
            aliased: 0,
            duplicates: Vec::new(),
        }
    }

    fn document(mut self) -> Result<Loaded, Error> {
        let value = if self.events.is_empty() { Value::Null } else { self.node()? };
        Ok(Loaded { value, duplicates: self.duplicates })
    }

    /// Counts a node; a document most of which is aliases is refused.
    fn count(&mut self) -> Result<(), Error> {
        self.decoded += 1;
        if self.in_alias > 0 {
            self.aliased += 1;
        }
        let allowed = match self.decoded {
            ..=400_000 => 0.99,
            4_000_000.. => 0.10,
            decoded => 0.99 - 0.89 * ((decoded - 400_000) as f64 / 3_600_000.0),
        };
        if self.aliased > 100 && self.decoded > 1000 && self.aliased as f64 / self.decoded as f64 > allowed {
            return Err(Error("yaml: document contains excessive aliasing".into()));
        }
        Ok(())
    }

    fn node(&mut self) -> Result<Value, Error> {
        self.count()?;
        let events = self.events;
        let Some((event, _)) = events.get(self.at) else { return Ok(Value::Null) };
        let here = self.at;
        self.at += 1;
        match event {
            Event::Scalar(text, style, _, tag) => {
                let suffix = tag.as_ref().map(|tag| tag.suffix());
                scalar(text, *style, suffix).1
            }
            Event::Alias(anchor) => self.alias(*anchor),
            Event::SequenceStart(..) => self.nested(here, Self::sequence),
            Event::MappingStart(..) => self.nested(here, Self::mapping),
            _ => Ok(Value::Null),
        }
    }

    fn nested(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut Self) -> Result<Value, Error>,
    ) -> Result<Value, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error(format!("yaml: exceeded max depth of {MAX_DEPTH}")));
        }
        self.open.insert(at);
        let value = read(self);
        self.open.remove(&at);
        self.depth -= 1;
        value
    }

    fn alias(&mut self, anchor: usize) -> Result<Value, Error> {
        let Some(&target) = self.anchors.get(&anchor) else {
            return Err(Error("yaml: unknown anchor referenced".into()));
        };
        if self.open.contains(&target) {
            return Err(Error("yaml: anchor value contains itself".into()));
        }
        let back = std::mem::replace(&mut self.at, target);
        self.in_alias += 1;
        let value = self.node();
        self.in_alias -= 1;
        self.at = back;
        value
    }

    fn sequence(&mut self) -> Result<Value, Error> {
        let mut items = Vec::new();
        while !matches!(self.events.get(self.at), None | Some((Event::SequenceEnd, _))) {
            items.push(self.node()?);
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn mapping(&mut self) -> Result<Value, Error> {
        let mut map = Map::new();
        let mut merged: Vec<Map<String, Value>> = Vec::new();
        while !matches!(self.events.get(self.at), None | Some((Event::MappingEnd, _))) {
            let line = self.events[self.at].1;
            if let (Event::Scalar(text, ScalarStyle::Plain, _, None), _) = &self.events[self.at]
                && text == "<<"
            {
                self.at += 1;
                merge_sources(self.node()?, &mut merged)?;
                continue;
            }
            let Some((shown, key)) = self.key()? else {
                return Err(unsupported_null_key(&self.node()?));
            };
            if map.contains_key(&key) {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
            let value = self.node()?;
            map.insert(key, value);
        }
        self.at += 1;
        for source in merged {
            for (key, value) in source {
                map.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(map))
    }

    /// A key as go-yaml shows it in errors, and as it stands in JSON; `None` for null.
    fn key(&mut self) -> Result<Option<(String, String)>, Error> {
        let events = self.events;
        if let Some((Event::Scalar(text, style, _, tag), _)) = events.get(self.at) {
            self.count()?;
            self.at += 1;
            let suffix = tag.as_ref().map(|tag| tag.suffix());
            return scalar(text, *style, suffix).1.map(key_of);
        }
        match self.node()? {
            Value::Array(_) => {
                Err(Error("yaml: invalid map key: sequences are not allowed as map keys".into()))
            }
            Value::Object(_) => {
                Err(Error("yaml: invalid map key: mappings are not allowed as map keys".into()))
            }
            value => Ok(key_of(value)),
        }
    }
}

fn key_of(value: Value) -> Option<(String, String)> {
    match value {
        Value::Null => None,
        Value::String(text) => Some((go_quote(&text), text)),
        value => Some((value.to_string(), value.to_string())),
    }
}

fn unsupported_null_key(value: &Value) -> Error {
    let shown = if value.is_null() { "<nil>".to_owned() } else { syntax_with_keys(value, "interface {}") };
    Error(format!("unsupported map key of type: %!s(<nil>), key: <nil>, value: {shown}"))
}

fn merge_sources(value: Value, merged: &mut Vec<Map<String, Value>>) -> Result<(), Error> {
    match value {
        Value::Object(map) => merged.push(map),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            merged.extend(items.into_iter().filter_map(|item| match item {
                Value::Object(map) => Some(map),
                _ => None,
            }));
        }
        _ => return Err(Error("yaml: map merge requires map or sequence of maps as the value".into())),
    }
    Ok(())
}

/// A number that JSON does not have, as Go prints it.
fn go_float(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'-') => "-Inf",
        _ if text.to_ascii_lowercase().ends_with("nan") => "NaN",
        _ => "+Inf",
    }
}

/// What a scalar means, and its JSON value.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> (Scalar, Result<Value, Error>) {
    let wrong = |wanted: &str| Err(Error(format!("yaml: cannot decode !!str `{text}` as a !!{wanted}")));
    let plain = |kind: Scalar| {
        let unsupported = || Error(format!("json: unsupported value: {}", go_float(text)));
        let value = kind.clone().into_json(text).ok_or_else(unsupported);
        (kind, value)
    };
    match tag {
        Some("str") => (Scalar::Text, Ok(Value::from(text))),
        Some("binary") => {
            let compact: String = text.split_ascii_whitespace().collect();
            let decoded = base64::engine::general_purpose::STANDARD.decode(compact).ok();
            let text = decoded.map(|bytes| Value::from(String::from_utf8_lossy(&bytes)));
            (
                Scalar::Text,
                text.ok_or_else(|| Error("yaml: !!binary value contains invalid base64 data".into())),
            )
        }
        Some(tag @ ("int" | "float" | "bool" | "null")) => match (tag, resolve(text)) {
            ("float", Scalar::Int(value)) => plain(Scalar::Float(value as f64)),
            ("int", kind @ Scalar::Int(_))
            | ("float", kind @ Scalar::Float(_))
            | ("bool", kind @ Scalar::Bool(_))
            | ("null", kind @ Scalar::Null) => plain(kind),
            (tag, _) => (Scalar::Text, wrong(tag)),
        },
        None if style == ScalarStyle::Plain => plain(resolve(text)),
        _ => (Scalar::Text, Ok(Value::from(text))),
    }
}
