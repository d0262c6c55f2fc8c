//! Which encoding a client wants and which one it sent (upstream `endpoints/handlers/negotiation`).

use api::status::ApiError;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

use crate::query::Query;

pub use api::codec::media::Encoding;

/// All encodings, in order of preference.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

fn covers(main: &str, sub: &str, encoding: Encoding) -> bool {
    let (own_main, own_sub) = encoding.media_type().split_once('/').expect("a media type has a slash");
    (main == "*" || main == own_main) && (sub == "*" || sub == own_sub)
}

/// What the client wants the answer turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// `as=Table`
    Table,
    /// `as=PartialObjectMetadata`
    PartialObjectMetadata,
    /// `as=PartialObjectMetadataList`
    PartialObjectMetadataList,
}

/// The version of `meta.k8s.io` that a transformed answer is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`
    #[default]
    V1,
    /// `v1beta1`
    V1Beta1,
}

impl MetaVersion {
    /// The `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The outcome of negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The encoding of the answer.
    pub encoding: Encoding,
    /// What it is turned into.
    pub transform: Option<(Transform, MetaVersion)>,
    /// Whether JSON is indented.
    pub pretty: bool,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { encoding: Encoding::Json, transform: None, pretty: false }
    }
}

/// What an endpoint can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// Whether tables and metadata-only answers are possible.
    pub transforms: bool,
    /// Whether `stream=watch` is.
    pub stream: bool,
    /// Whether it is where objects are listed and watched.
    pub collection: bool,
    /// Whether its objects have a schema that they were compiled with: custom ones do not, and have no protobuf.
    pub compiled: bool,
}

impl Restrictions {
    /// An endpoint that answers with objects only.
    pub const OBJECTS: Self = Self { transforms: false, stream: false, collection: false, compiled: true };
    /// An endpoint of a resource.
    pub const RESOURCE: Self = Self { transforms: true, stream: true, collection: false, compiled: true };
    /// Where the objects of a resource are listed and watched.
    pub const COLLECTION: Self = Self { collection: true, ..Self::RESOURCE };
}

struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f32,
    params: Vec<(&'a str, &'a str)>,
}

fn parse_accept(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut fields = part.split(';').map(str::trim);
            let media = fields.next().filter(|media| !media.is_empty())?;
            let (main, sub) = media.split_once('/').unwrap_or((media, if media == "*" { "*" } else { "" }));
            let mut clause = Clause { main: main.trim(), sub: sub.trim(), quality: 1.0, params: Vec::new() };
            for field in fields {
                let (name, value) = field.split_once('=').unwrap_or((field, ""));
                if name == "q" {
                    clause.quality = value.parse().unwrap_or(1.0);
                } else {
                    clause.params.push((name.trim(), value.trim()));
                }
            }
            Some(clause)
        })
        .collect();
    clauses.sort_by(|a, b| {
        let specific = |c: &Clause<'_>| (c.main != "*", c.sub != "*");
        b.quality.total_cmp(&a.quality).then_with(|| specific(b).cmp(&specific(a)))
    });
    clauses
}

/// What the client accepts, in one text.
#[must_use]
pub fn accept_header(headers: &HeaderMap) -> String {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
}

/// The media ranges of an `Accept` header, the most wanted first.
#[must_use]
pub fn media_ranges(header: &str) -> Vec<(&str, &str)> {
    parse_accept(header).into_iter().map(|clause| (clause.main, clause.sub)).collect()
}

/// Reads the parameters of an accepted media type; `None` if the endpoint cannot do what they ask for.
fn options(params: &[(&str, &str)], encoding: Encoding, can: Restrictions) -> Option<Accepted> {
    let mut accepted = Accepted { encoding, ..Accepted::default() };
    let (mut kind, mut group, mut version) = (None, "", "");
    for (name, value) in params {
        match *name {
            "as" => kind = Some(*value),
            "g" => (group, kind) = (*value, kind.or(Some(""))),
            "v" => (version, kind) = (*value, kind.or(Some(""))),
            "stream" => {
                let streams = can.stream && *value == "watch" && encoding != Encoding::Yaml;
                if !value.is_empty() && !streams {
                    return None;
                }
            }
            "pretty" => accepted.pretty = *value == "1",
            _ => {}
        }
    }
    let Some(kind) = kind else { return Some(accepted) };
    if !can.transforms || group != "meta.k8s.io" {
        return None;
    }
    let version = match version {
        "v1" => MetaVersion::V1,
        "v1beta1" => MetaVersion::V1Beta1,
        _ => return None,
    };
    let transform = match kind {
        "Table" if encoding != Encoding::Protobuf => Transform::Table,
        "PartialObjectMetadata" => Transform::PartialObjectMetadata,
        "PartialObjectMetadataList" => Transform::PartialObjectMetadataList,
        _ => return None,
    };
    accepted.transform = Some((transform, version));
    Some(accepted)
}

/// Picks the encoding of the answer; 406 if none suits.
pub fn accept(headers: &HeaderMap, query: &Query, can: Restrictions) -> Result<Accepted, ApiError> {
    let text = accept_header(headers);
    let pretty = pretty(headers, query);
    if text.trim().is_empty() {
        return Ok(Accepted { pretty, ..Accepted::default() });
    }
    if can.compiled && !is_routed(&text) {
        return Err(no_representation(can));
    }
    let clauses = parse_accept(&text);
    for clause in &clauses {
        for encoding in encodings(can) {
            if !covers(clause.main, clause.sub, encoding) {
                continue;
            }
            if let Some(accepted) = options(&clause.params, encoding, can) {
                return Ok(Accepted { pretty: accepted.pretty || pretty, ..accepted });
            }
        }
    }
    Err(not_acceptable_of(can))
}

/// Whether upstream's router, which sees a request first, finds a media type it knows: `application/*` is none.
fn is_routed(accept: &str) -> bool {
    let mut types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    types.any(|media| media == "*/*" || ENCODINGS.iter().any(|encoding| encoding.media_type() == media))
}

/// 406 of upstream's router, which knows media types only, not what they are turned into.
fn no_representation(can: Restrictions) -> ApiError {
    let mut types = media_types();
    if can.collection {
        types.push_str(", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch");
    }
    let message = format!("406: Not Acceptable\n\nAvailable representations: {types}");
    let mut error = ApiError::new(406, "NotAcceptable", message);
    error.status.details = Some(Default::default());
    error
}

/// 406 of a watch.
#[must_use]
pub fn not_acceptable_for_watch() -> ApiError {
    let types = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    ApiError::new(406, "NotAcceptable", format!("only the following media types are accepted: {types}"))
}

/// The encoding for errors: what the client wants if that is possible, else JSON.
#[must_use]
pub fn accept_for_error(headers: &HeaderMap, query: &Query) -> Accepted {
    accept(headers, query, Restrictions { transforms: false, ..Restrictions::RESOURCE })
        .or_else(|_| accept(headers, query, Restrictions::RESOURCE))
        .map(|accepted| Accepted { transform: None, ..accepted })
        .unwrap_or_default()
}

/// 406.
#[must_use]
pub fn not_acceptable() -> ApiError {
    not_acceptable_of(Restrictions::OBJECTS)
}

fn not_acceptable_of(can: Restrictions) -> ApiError {
    let types = encodings(can).map(Encoding::media_type).collect::<Vec<_>>().join(", ");
    ApiError::new(406, "NotAcceptable", format!("only the following media types are accepted: {types}"))
}

fn encodings(can: Restrictions) -> impl Iterator<Item = Encoding> {
    ENCODINGS.into_iter().filter(move |encoding| can.compiled || *encoding != Encoding::Protobuf)
}

fn media_types() -> String {
    ENCODINGS.map(Encoding::media_type).join(", ")
}

/// As upstream: asked for by the query, or by being a person with curl or a browser.
fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(value) = query.first("pretty").filter(|value| !value.is_empty()) {
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// The encoding of a request body; 415 for one that is not known. No header means JSON.
pub fn content_encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let media = media_type(headers);
    if media.is_empty() {
        return Ok(Encoding::Json);
    }
    ENCODINGS.into_iter().find(|encoding| encoding.media_type() == media).ok_or_else(|| {
        let types = media_types();
        unsupported(format!(
            "the body of the request was in an unknown format - accepted media types include: {types}"
        ))
    })
}

/// 415.
#[must_use]
pub fn unsupported(message: impl Into<String>) -> ApiError {
    ApiError::new(415, "UnsupportedMediaType", message)
}

/// The media type of the request body, without parameters, in lower case.
#[must_use]
pub fn media_type(headers: &HeaderMap) -> String {
    media_type_as_sent(headers).to_ascii_lowercase()
}

/// The media type of the request body, without parameters. Upstream's router, which chooses by it among the kinds of
/// patches, looks at the case of letters.
#[must_use]
pub fn media_type_as_sent(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// Whether the client takes gzip.
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let value = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(',').any(|part| {
        let mut fields = part.split(';').map(str::trim);
        fields.next() == Some("gzip") && !fields.any(|field| matches!(field, "q=0" | "q=0.0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept_header: &str) -> Result<Accepted, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept_header.parse().expect("a header"));
        accept(&headers, &Query::default(), Restrictions::RESOURCE).map_err(|e| e.code())
    }

    fn plain(encoding: Encoding) -> Result<Accepted, u16> {
        Ok(Accepted { encoding, ..Accepted::default() })
    }

    #[test]
    fn the_first_possible_clause_wins() {
        let table = Some((Transform::Table, MetaVersion::V1));
        assert_eq!(negotiate(""), plain(Encoding::Json));
        assert_eq!(negotiate("*/*"), plain(Encoding::Json));
        assert_eq!(negotiate("application/yaml"), plain(Encoding::Yaml));
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf, application/json"),
            plain(Encoding::Protobuf)
        );
        assert_eq!(negotiate("application/json;q=0.5,application/yaml"), plain(Encoding::Yaml));
        assert_eq!(
            negotiate("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Ok(Accepted { transform: table, ..Accepted::default() })
        );
        assert_eq!(negotiate("application/json;as=Nope;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(
            negotiate("application/json;as=Nope;v=v1;g=meta.k8s.io, application/json"),
            plain(Encoding::Json)
        );
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"), Err(406));
        assert_eq!(negotiate("text/html"), Err(406));
        assert_eq!(negotiate("application/*"), Err(406));
        assert_eq!(negotiate("application/*, application/yaml"), plain(Encoding::Yaml));
    }

    #[test]
    fn unknown_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(content_encoding(&headers), Ok(Encoding::Json));
        headers.insert(CONTENT_TYPE, "application/yaml; charset=utf-8".parse().expect("a header"));
        assert_eq!(content_encoding(&headers), Ok(Encoding::Yaml));
        headers.insert(CONTENT_TYPE, "text/plain".parse().expect("a header"));
        assert_eq!(content_encoding(&headers).expect_err("unknown").code(), 415);
    }
}
