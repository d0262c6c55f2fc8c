//! The texts of embedded objects within messages: where they are read from a message, and put back into one.
//!
//! Few types have embedded objects, so this is a second walk over their messages, and costs others nothing.

use serde_json::Value;

use super::wire::{self, Data, Reader};
use super::{Error, MAX_DEPTH};
use crate::codec::verbatim::Verbatim;
use crate::schema::{Node, NodeRef, Raw, TypeRef, WireTo};

/// What becomes of an embedded object's text; `None`: it stays.
type Change<'a> = dyn FnMut(&[u8]) -> Option<Vec<u8>> + 'a;

/// The texts of embedded objects in the message of a `ty` that their values do not tell.
///
/// # Errors
/// When the message is malformed.
pub fn texts(message: &[u8], ty: TypeRef<'_>) -> Result<Vec<Verbatim>, Error> {
    let mut found = Vec::new();
    copy(message, ty, MAX_DEPTH, &mut |text| {
        let read = std::str::from_utf8(text).ok();
        let read = read.and_then(|text| Some((text, serde_json::from_str::<Value>(text).ok()?)));
        found.extend(read.and_then(|(text, value)| Verbatim::of(text, &value)));
        None
    })?;
    Ok(found)
}

/// A message of our encoder with the texts in the places of the values that they are of.
///
/// # Errors
/// When the message is malformed.
pub fn restore(message: &[u8], ty: TypeRef<'_>, texts: &[Verbatim]) -> Result<Vec<u8>, Error> {
    copy(message, ty, MAX_DEPTH, &mut |written| {
        let value = serde_json::from_slice(written).ok()?;
        texts.iter().find_map(|text| text.instead_of(&value)).map(<[u8]>::to_vec)
    })
}

fn copy(message: &[u8], ty: TypeRef<'_>, depth: usize, change: &mut Change<'_>) -> Result<Vec<u8>, Error> {
    each(message, |tag, data| {
        let Ok(at) = ty.wire().binary_search_by_key(&tag, |entry| entry.tag) else { return Ok(None) };
        match ty.wire()[at].to {
            WireTo::Inline(inner) => copy(data, ty.schema().ty(inner), deeper(depth)?, change).map(Some),
            WireTo::Field(at) => value(data, ty.node(&ty.fields()[usize::from(at)]), depth, change),
        }
    })
}

/// One occurrence of a field; `None` if nothing is embedded in it.
fn value(
    data: &[u8],
    node: NodeRef<'_>,
    depth: usize,
    change: &mut Change<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    match node.node() {
        Node::Raw(Raw::Extension) => {
            each(data, |tag, text| Ok((tag == 1).then(|| change(text)).flatten())).map(Some)
        }
        Node::Object { ty, .. } => copy(data, node.schema().ty(*ty), deeper(depth)?, change).map(Some),
        Node::List { item, wrapped: false, .. } => value(data, node.schema().node(*item), depth, change),
        Node::List { item, wrapped: true, .. } => {
            let item = node.schema().node(*item);
            each(data, |tag, data| if tag == 1 { value(data, item, depth, change) } else { Ok(None) })
                .map(Some)
        }
        Node::Map { value: shape, .. } => {
            let shape = node.schema().node(*shape);
            each(data, |tag, data| if tag == 2 { value(data, shape, depth, change) } else { Ok(None) })
                .map(Some)
        }
        _ => Ok(None),
    }
}

/// Copies a message field by field; `change` may give bytes to be written instead of a field's.
fn each(
    message: &[u8],
    mut change: impl FnMut(u32, &[u8]) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(message.len());
    let mut reader = Reader::new(message);
    loop {
        let before = reader.rest();
        let Some((tag, data)) = reader.next()? else { return Ok(out) };
        let changed = match data {
            Data::Bytes(bytes) => change(tag, bytes)?,
            _ => None,
        };
        match changed {
            Some(bytes) => wire::bytes(&mut out, tag, &bytes),
            None => out.extend_from_slice(&before[..before.len() - reader.rest().len()]),
        }
    }
}

fn deeper(depth: usize) -> Result<usize, Error> {
    depth.checked_sub(1).ok_or(Error::Malformed("nested too deeply"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::protobuf;
    use crate::names::GroupVersionKind;

    #[test]
    fn texts_go_through_messages_as_they_came() {
        let gvk = GroupVersionKind::new("resource.k8s.io", "v1", "ResourceClaim");
        let ty = crate::schema::type_for(&gvk).expect("a type");
        // Through objects, lists and a union: spec.devices.config[].opaque.parameters.
        let claim = |parameters: &str| {
            let body = format!(
                r#"{{"metadata":{{"name":"c"}},"spec":{{"devices":{{"config":[
                {{"opaque":{{"driver":"one","parameters":{{"a":1,"b":2}}}}}},
                {{"opaque":{{"driver":"two","parameters":{parameters}}}}}]}}}}}}"#
            );
            ty.decode_slice(body.as_bytes()).expect("a claim")
        };
        let decoded = claim(r#"{"z":1e3,"a":{"y":[],"b":"<"}}"#);
        assert_eq!(decoded.verbatim.len(), 1);
        let mut message = Vec::new();
        protobuf::encode_message(&mut message, &decoded.value, ty).expect("fits");
        assert!(texts(&message, ty).expect("a message").is_empty(), "they are our encoder's");

        let sent = restore(&message, ty, &decoded.verbatim).expect("a message");
        let text = br#"{"z":1e3,"a":{"y":[],"b":"\u003c"}}"#;
        assert!(memchr::memmem::find(&sent, text).is_some());
        assert_eq!(texts(&sent, ty).expect("a message"), decoded.verbatim);
        let back = protobuf::decode_message(&sent, ty).expect("a message");
        assert_eq!(json!(back)["spec"], decoded.value["spec"]);
        // Nothing to put back: the same bytes.
        assert_eq!(restore(&message, ty, &[]).expect("a message"), message);
    }
}
