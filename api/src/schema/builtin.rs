//! The built-in schema: static tables made by the build script.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::{
    Field, GoKind, Kind, ListType, Node, NodeId, Patch, Raw, Schema, SchemaOr, TypeDef, TypeId, TypeRef,
    WhenEmpty, Wire, WireTo,
};
use crate::names::GroupVersionKind;

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

static BUILTIN: Schema = Schema::fixed(&TYPES, &NODES);

/// Kinds that exist in every group: `v1` of the core group speaks for them (`metav1.AddToGroupVersion`).
const EVERYWHERE: &[&str] = &[
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "ApplyOptions",
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "Status",
    "UpdateOptions",
    "WatchEvent",
];

/// The schema of all built-in types.
#[must_use]
pub fn builtin() -> &'static Schema {
    &BUILTIN
}

/// All built-in kinds, sorted by group, version and kind.
#[must_use]
pub fn kinds() -> &'static [Kind] {
    &KINDS
}

/// The type of a built-in kind.
#[must_use]
pub fn type_for(gvk: &GroupVersionKind) -> Option<TypeRef<'static>> {
    // Every request asks several times.
    static BY_KIND: LazyLock<HashMap<&str, Vec<&Kind>, foldhash::fast::RandomState>> = LazyLock::new(|| {
        let mut by_kind = HashMap::<_, Vec<_>, _>::default();
        KINDS.iter().for_each(|kind| by_kind.entry(kind.kind).or_default().push(kind));
        by_kind
    });
    let all = BY_KIND.get(gvk.kind.as_ref())?;
    let find = |group: &str, version: &str| all.iter().find(|k| k.group == group && k.version == version);
    find(&gvk.group, &gvk.version)
        .or_else(|| if EVERYWHERE.contains(&gvk.kind.as_ref()) { find("", "v1") } else { None })
        .map(|kind| BUILTIN.ty(kind.ty))
}

/// A type of which at most one field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Union {
    /// The field that says which; empty if there is none.
    pub discriminator: &'static str,
    /// The fields, and what the discriminator says for each.
    pub members: &'static [(&'static str, &'static str)],
}

/// The values that a field of a built-in type (or the elements of the field) may have; empty if any.
#[must_use]
pub fn enum_values(ty: TypeId, field: &str) -> &'static [&'static str] {
    ENUMS.binary_search_by(|(key, _)| key.cmp(&(ty.0, field))).map_or(&[], |at| ENUMS[at].1)
}

/// What a field says of how its value is merged. Without a word lists are replaced and maps are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `x-kubernetes-list-type`
    pub list: Option<&'static str>,
    /// `x-kubernetes-map-type`
    pub map: Option<&'static str>,
}

/// What a field of a built-in type says of how its value is merged.
#[must_use]
pub fn declared(ty: TypeId, field: &str) -> Declared {
    let found = DECLARED.binary_search_by(|(key, _)| key.cmp(&(ty.0, field)));
    found.map_or_else(|_| Declared::default(), |at| DECLARED[at].1)
}

/// The unions that a built-in type is.
pub fn unions(ty: TypeId) -> impl Iterator<Item = &'static Union> {
    UNIONS.iter().filter(move |(of, _)| *of == ty.0).map(|(_, union)| union)
}

/// The built-in type with this full name, for example `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn type_named(name: &str) -> Option<TypeRef<'static>> {
    static NAMES: LazyLock<HashMap<&'static str, TypeId>> =
        LazyLock::new(|| BUILTIN.types().map(|ty| (ty.name(), ty.id())).collect());
    NAMES.get(name).map(|id| BUILTIN.ty(*id))
}
