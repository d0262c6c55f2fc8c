//! What types and fields are about, in the words of the API's documentation.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::ZlibDecoder;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

/// Descriptions by type and field; an empty field stands for the type itself.
pub type Descriptions = HashMap<(String, String), String>;

fn unpack() -> String {
    let mut text = String::new();
    // The build script wrote it; an error would leave descriptions out, no more.
    let _ = ZlibDecoder::new(PACKED).read_to_string(&mut text);
    text
}

fn lines(text: &str) -> impl Iterator<Item = (&str, &str, String)> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (name, field, text) = (parts.next()?, parts.next()?, parts.next()?);
        Some((name, field, unescape(text)))
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// All of them. Several megabytes: not to be kept.
#[must_use]
pub fn all() -> Descriptions {
    lines(&unpack()).map(|(name, field, text)| ((name.to_owned(), field.to_owned()), text)).collect()
}

/// Those that table columns need.
static COLUMNS: LazyLock<Descriptions> = LazyLock::new(|| {
    let mut wanted: HashSet<(&str, &str)> = HashSet::new();
    let kinds = api::registry::resources().iter().flat_map(|row| {
        let subresources = row.subresources.iter().map(|sub| row.subresource_kind(sub));
        std::iter::once(row.gvk()).chain(subresources)
    });
    for kind in kinds {
        for column in api::printers::columns(&kind) {
            if let api::printers::Doc::Field(name, field) | api::printers::Doc::Older(name, field, _) =
                column.doc
            {
                wanted.insert((name, field));
            }
        }
    }
    lines(&unpack())
        .filter(|(name, field, _)| wanted.contains(&(*name, *field)))
        .map(|(name, field, text)| ((name.to_owned(), field.to_owned()), text))
        .collect()
});

/// The description of a field that a column shows.
#[must_use]
pub fn of_column(name: &str, field: &str) -> Option<String> {
    COLUMNS.get(&(name.to_owned(), field.to_owned())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_described() {
        let text = of_column("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "name").expect("described");
        assert!(text.starts_with("Name must be unique within a namespace."), "{text}");
        let of_age = of_column("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp");
        assert!(of_age.expect("described").contains("\n\nPopulated by the system."));
    }
}
