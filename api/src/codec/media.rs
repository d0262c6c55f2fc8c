//! Media types of requests and responses: `Content-Type`, and `Accept` with its preferences.

/// The encodings that the API speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// JSON patch.
pub const JSON_PATCH: &str = "application/json-patch+json";
/// JSON merge patch.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// Strategic merge patch.
pub const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
/// Server-side apply, in YAML.
pub const APPLY_YAML: &str = "application/apply-patch+yaml";

impl Encoding {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch stream in this encoding.
    #[must_use]
    pub fn stream_media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Yaml => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// The encoding called by a bare media type.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        [Self::Json, Self::Yaml, Self::Protobuf].into_iter().find(|e| e.media_type() == media_type)
    }
}

/// A media type with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    pub essence: String,
    /// Parameters in the order given, names in lower case.
    pub params: Vec<(String, String)>,
    /// Preference, 0 to 1.
    pub quality: f32,
}

impl MediaType {
    /// Reads one media type.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(text, ';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        let token = |t: &str| {
            !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
        };
        if !token(kind) || !token(subtype) {
            return None;
        }
        let mut media = Self { essence: essence.clone(), params: Vec::new(), quality: 1.0 };
        for part in parts.map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim().to_ascii_lowercase(), unquote(value.trim()));
            if name == "q" {
                media.quality = value.parse().unwrap_or(0.0);
            } else {
                media.params.push((name, value));
            }
        }
        Some(media)
    }

    /// The value of a parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether `essence` is covered by this media range.
    #[must_use]
    pub fn covers(&self, essence: &str) -> bool {
        match self.essence.split_once('/') {
            Some(("*", "*")) => true,
            Some((kind, "*")) => essence.split_once('/').is_some_and(|(k, _)| k == kind),
            _ => self.essence == essence,
        }
    }

    fn specificity(&self) -> u8 {
        match self.essence.split_once('/') {
            Some(("*", _)) => 0,
            Some((_, "*")) => 1,
            _ => 2,
        }
    }
}

/// Reads an `Accept` header: the most wanted first. Nothing readable gives nothing.
#[must_use]
pub fn parse_accept(header: &str) -> Vec<MediaType> {
    let mut list: Vec<MediaType> = split_outside_quotes(header, ',').filter_map(MediaType::parse).collect();
    list.sort_by(|a, b| {
        let by_quality = b.quality.partial_cmp(&a.quality).unwrap_or(std::cmp::Ordering::Equal);
        by_quality.then(b.specificity().cmp(&a.specificity()))
    });
    list
}

/// The object a response should be turned into (`as=Table;v=v1;g=meta.k8s.io`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// `Table`, `PartialObjectMetadata` or `PartialObjectMetadataList`.
    pub kind: String,
    /// Version.
    pub version: String,
    /// Group.
    pub group: String,
}

impl MediaType {
    /// The conversion asked for, if any.
    #[must_use]
    pub fn conversion(&self) -> Option<Conversion> {
        let kind = self.param("as").filter(|kind| !kind.is_empty())?;
        let text = |name| self.param(name).unwrap_or_default().to_owned();
        Some(Conversion { kind: kind.to_owned(), version: text("v"), group: text("g") })
    }
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        c == separator && !quoted
    })
}

fn unquote(value: &str) -> String {
    match value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_ordered_by_quality_then_specificity() {
        let accept =
            "*/*, application/yaml;q=0.9, application/json;as=Table;v=v1;g=meta.k8s.io, application/json";
        let essences: Vec<_> =
            parse_accept(accept).into_iter().map(|m| (m.essence.clone(), m.conversion())).collect();
        let table = Conversion { kind: "Table".into(), version: "v1".into(), group: "meta.k8s.io".into() };
        assert_eq!(
            essences,
            [
                ("application/json".to_owned(), Some(table)),
                ("application/json".to_owned(), None),
                ("*/*".to_owned(), None),
                ("application/yaml".to_owned(), None),
            ]
        );
    }

    #[test]
    fn parameters_are_read() {
        let media = MediaType::parse("Application/JSON; Charset=\"utf-8\"; stream=watch").unwrap();
        assert_eq!(media.essence, "application/json");
        assert_eq!(media.param("charset"), Some("utf-8"));
        assert_eq!(media.param("stream"), Some("watch"));
        assert_eq!(MediaType::parse("nonsense"), None);
    }
}
