//! Embedded objects keep their text. Upstream holds a `runtime.RawExtension` as the bytes that came, so the order of
//! its keys and the writing of its numbers outlive storing; our values know neither. Where the text is another than
//! our encoder's it is kept beside the value, and put back when the object is encoded.

use std::sync::LazyLock;

use serde_json::Value;

use super::ordered;
use crate::schema::{self, Node, NodeRef, Raw, TypeRef};

/// The text of an embedded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbatim {
    /// What our encoder makes of its value.
    canonical: Vec<u8>,
    /// As it came, without blanks and with Go's escapes.
    text: Vec<u8>,
}

impl Verbatim {
    /// The text of `value`, if the encoder would not write the same.
    #[must_use]
    pub fn of(text: &str, value: &Value) -> Option<Self> {
        // Anything else has no order, and could not be told from other values.
        value.as_object()?;
        let mut canonical = Vec::new();
        ordered::write(&mut canonical, value);
        let text = compact(text);
        (text != canonical).then_some(Self { canonical, text })
    }

    /// The text, if it is that of `value`.
    #[must_use]
    pub fn instead_of(&self, value: &Value) -> Option<&[u8]> {
        let mut canonical = Vec::new();
        ordered::write(&mut canonical, value);
        (self.canonical == canonical).then_some(&self.text)
    }
}

impl TypeRef<'static> {
    /// Whether objects of this built-in type can have embedded objects.
    #[must_use]
    pub fn embeds_objects(self) -> bool {
        usize::try_from(self.id().0).is_ok_and(|id| EMBEDS.get(id).copied().unwrap_or_default())
    }
}

/// For each built-in type, by its id.
static EMBEDS: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let types: Vec<_> = schema::builtin().types().collect();
    let mut found = vec![false; types.len()];
    loop {
        let has = |ty: &TypeRef<'static>| ty.fields().iter().any(|field| embeds(ty.node(field), &found));
        let now: Vec<bool> = types.iter().map(has).collect();
        if now == found {
            return found;
        }
        found = now;
    }
});

fn embeds(node: NodeRef<'static>, types: &[bool]) -> bool {
    match node.node() {
        Node::Raw(Raw::Extension) => true,
        Node::Object { ty, .. } => types[ty.0 as usize],
        Node::List { .. } => node.item().is_some_and(|item| embeds(item, types)),
        Node::Map { .. } => node.value().is_some_and(|value| embeds(value, types)),
        _ => false,
    }
}

/// Puts texts in the places of the values that they are of. An encoded object cannot be part of a string: it would have
/// its quotes escaped there.
#[must_use]
pub fn restore(mut encoded: Vec<u8>, texts: &[Verbatim]) -> Vec<u8> {
    for Verbatim { canonical, text } in texts {
        if let Some(at) = memchr::memmem::find(&encoded, canonical) {
            encoded.splice(at..at + canonical.len(), text.iter().copied());
        }
    }
    encoded
}

/// JSON text without blanks, escaped as Go's `json.Compact` does it within another encoder.
fn compact(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if !quoted && c.is_ascii_whitespace() {
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        match ordered::escape(c) {
            Some(escape) => out.extend_from_slice(escape.as_bytes()),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::GroupVersionKind;

    fn round(data: &str) -> String {
        let ty = crate::schema::type_for(&GroupVersionKind::new("apps", "v1", "ControllerRevision"));
        let body = format!(
            r#"{{"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {data}, "metadata": {{"name": "r"}}}}"#
        );
        let decoded = ty.expect("a type").decode_slice(body.as_bytes()).expect("fits");
        let mut out = Vec::new();
        ordered::write(&mut out, &ordered::Ordered { value: &decoded.value, ty });
        String::from_utf8(restore(out, &decoded.verbatim)).expect("text")
    }

    #[test]
    fn an_embedded_object_is_written_as_it_came() {
        for (data, written) in [
            (r#"{"a":1,"b":{}}"#, r#"{"a":1,"b":{}}"#),
            (r#"{ "b": 1, "a" : [ 1e3, 1.0 ] }"#, r#"{"b":1,"a":[1e3,1.0]}"#),
            (r#"{"big":92233720368547758080}"#, r#"{"big":92233720368547758080}"#),
            (r#"{"b":"<a \" }","a":"\\"}"#, r#"{"b":"\u003ca \" }","a":"\\"}"#),
            (r#"[ 2, 1e3 ]"#, "[2,1000.0]"),
        ] {
            let whole = round(data);
            assert!(whole.contains(&format!(r#""data":{written},"#)), "{data}: {whole}");
        }
    }

    #[test]
    fn texts_like_the_encoders_are_not_kept() {
        assert_eq!(Verbatim::of(r#"{ "a": [1, "x"] }"#, &json!({"a": [1, "x"]})), None);
        assert_eq!(Verbatim::of("[1e3]", &json!([1000.0])), None);
    }

    #[test]
    fn few_types_embed_objects() {
        for (group, version, kind, expected) in [
            ("apps", "v1", "ControllerRevision", true),
            ("resource.k8s.io", "v1", "ResourceClaimTemplate", true),
            ("", "v1", "Pod", false),
            ("apps", "v1", "Deployment", false),
        ] {
            let ty = schema::type_for(&GroupVersionKind::new(group, version, kind)).expect("a type");
            assert_eq!(ty.embeds_objects(), expected, "{kind}");
        }
    }

    #[test]
    fn what_is_not_there_any_more_is_left_out() {
        let text = Verbatim::of(r#"{"b":1,"a":2}"#, &json!({"b": 1, "a": 2})).expect("another order");
        assert_eq!(restore(b"{\"data\":{\"a\":3}}".to_vec(), &[text]), b"{\"data\":{\"a\":3}}");
    }
}
