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
    let find = |group: &str, version: &str| {
        KINDS
            .binary_search_by(|k| (k.group, k.version, k.kind).cmp(&(group, version, gvk.kind.as_ref())))
            .ok()
            .map(|at| BUILTIN.ty(KINDS[at].ty))
    };
    find(&gvk.group, &gvk.version)
        .or_else(|| if EVERYWHERE.contains(&gvk.kind.as_ref()) { find("", "v1") } else { None })
}

/// The built-in type with this full name, for example `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn type_named(name: &str) -> Option<TypeRef<'static>> {
    static NAMES: LazyLock<HashMap<&'static str, TypeId>> =
        LazyLock::new(|| BUILTIN.types().map(|ty| (ty.name(), ty.id())).collect());
    NAMES.get(name).map(|id| BUILTIN.ty(*id))
}
