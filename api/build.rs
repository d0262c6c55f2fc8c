//! Turns the tables in `data/` into the static tables of `schema::builtin` and `registry`.
//!
//! References between types become indexes; everything that is looked up by name is sorted here, once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

/// Types that are not plain objects in JSON, with the node that stands for them.
const SPECIAL: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "Quantity"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "Time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "MicroTime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "Duration"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "IntOrString"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "Raw(Raw::Extension)"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "Raw(Raw::FieldsV1)"),
    ("io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON", "Raw(Raw::Json)"),
    ("io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1beta1.JSON", "Raw(Raw::Json)"),
];

/// Unions of a JSON schema with something else, in the package of the CustomResourceDefinition.
const SCHEMA_OR: &[(&str, &str)] = &[
    ("JSONSchemaPropsOrArray", "Array"),
    ("JSONSchemaPropsOrBool", "Bool"),
    ("JSONSchemaPropsOrStringArray", "StringArray"),
];

struct Field<'a> {
    name: &'a str,
    kind: &'a str,
    mode: &'a str,
    tag: u32,
    extras: Vec<&'a str>,
}

struct Type<'a> {
    package: &'a str,
    name: &'a str,
    atomic: bool,
    unions: Vec<&'a str>,
    fields: Vec<Field<'a>>,
}

fn main() {
    println!("cargo:rerun-if-changed=data");
    println!("cargo:rerun-if-changed=build.rs");
    let dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let read = |name: &str| fs::read_to_string(Path::new(&dir).join("data").join(name)).expect(name);
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let types_text = read("types.tsv");
    let types = parse(&types_text);
    let index: BTreeMap<String, usize> =
        types.iter().enumerate().map(|(i, t)| (format!("{}.{}", t.package, t.name), i)).collect();
    let mut schema = Tables::new(&index);
    for (i, ty) in types.iter().enumerate() {
        schema.add(i, ty);
    }
    let mut text = schema.finish();
    enums(&mut text, &types);
    declared(&mut text, &types);
    unions(&mut text, &types);
    kinds(&mut text, &read("kinds.tsv"), &index);
    fs::write(Path::new(&out).join("schema.rs"), text).expect("write schema.rs");
    fs::write(Path::new(&out).join("registry.rs"), registry(&read("resources.tsv")))
        .expect("write registry.rs");
}

fn parse(text: &str) -> Vec<Type<'_>> {
    let mut types: Vec<Type> = Vec::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('@') {
            package = name;
        } else if let Some(rest) = line.strip_prefix('\t') {
            let columns: Vec<&str> = rest.split('\t').collect();
            types.last_mut().expect("a field follows its type").fields.push(Field {
                name: columns[0],
                kind: columns[1],
                mode: columns[2],
                tag: columns[3].parse().expect("tag"),
                extras: columns[4..].to_vec(),
            });
        } else {
            let mut columns = line.split('\t');
            let name = columns.next().expect("a type has a name");
            let mut ty = Type { package, name, atomic: false, unions: vec![], fields: vec![] };
            for column in columns {
                ty.atomic |= column == "map=atomic";
                ty.unions.extend(column.strip_prefix("union="));
            }
            types.push(ty);
        }
    }
    types
}

/// The Rust text of the schema tables while it grows.
struct Tables<'a> {
    index: &'a BTreeMap<String, usize>,
    nodes: Vec<String>,
    known: BTreeMap<String, usize>,
    fields: String,
    types: String,
    count: usize,
}

impl<'a> Tables<'a> {
    fn new(index: &'a BTreeMap<String, usize>) -> Self {
        Self {
            index,
            nodes: vec![],
            known: BTreeMap::new(),
            fields: String::new(),
            types: String::new(),
            count: 0,
        }
    }

    fn node(&mut self, text: String) -> usize {
        let next = self.nodes.len();
        *self.known.entry(text.clone()).or_insert_with(|| {
            self.nodes.push(text);
            next
        })
    }

    /// The node for `kind` as written in `package`; `extras` are the list and map facts of the field.
    fn node_of(&mut self, kind: &str, package: &str, extras: &[&str]) -> usize {
        let fact = |key: &str| extras.iter().find_map(|e| e.strip_prefix(key));
        if let Some(inner) = kind.strip_prefix("[]").or_else(|| kind.strip_prefix("[w]")) {
            let item = self.node_of(inner, package, &[]);
            let keys: Vec<String> = fact("keys=")
                .map(|k| k.split(',').map(|k| format!("Cow::Borrowed({k:?})")).collect())
                .unwrap_or_default();
            let semantics = match fact("list=") {
                Some("map") => format!("ListType::Map(Cow::Borrowed(&[{}]))", keys.join(", ")),
                Some("set") => "ListType::Set".into(),
                _ => "ListType::Atomic".into(),
            };
            let wrapped = kind.starts_with("[w]");
            return self.node(format!(
                "List {{ item: NodeId({item}), semantics: {semantics}, wrapped: {wrapped} }}"
            ));
        }
        let merged = match fact("map=") {
            Some("atomic") => "Some(true)",
            Some("granular") => "Some(false)",
            _ => "None",
        };
        let atomic = fact("map=") == Some("atomic");
        if let Some(inner) = kind.strip_prefix("{}") {
            let value = self.node_of(inner, package, &[]);
            return self.node(format!("Map {{ value: NodeId({value}), atomic: {atomic} }}"));
        }
        let scalar = match kind {
            "string" => "String",
            "int32" => "Int32",
            "int64" => "Int64",
            "bool" => "Bool",
            "double" => "Double",
            "bytes" => "Bytes",
            "Any" => "Raw(Raw::Any)",
            _ => return self.reference(kind, package, merged),
        };
        self.node(scalar.to_owned())
    }

    fn reference(&mut self, kind: &str, package: &str, atomic: &str) -> usize {
        let full = if kind.starts_with("io.") { kind.to_owned() } else { format!("{package}.{kind}") };
        if let Some((_, node)) = SPECIAL.iter().find(|(name, _)| *name == full) {
            return self.node((*node).to_owned());
        }
        let (owner, short) = full.rsplit_once('.').expect("a full name has a package");
        if let Some((_, flavour)) = SCHEMA_OR.iter().find(|(name, _)| *name == short) {
            let props = self.index[&format!("{owner}.JSONSchemaProps")];
            return self.node(format!("SchemaOr {{ flavour: SchemaOr::{flavour}, ty: TypeId({props}) }}"));
        }
        match self.index.get(&full) {
            Some(ty) => self.node(format!("Object {{ ty: TypeId({ty}), atomic: {atomic} }}")),
            // A type without fields.
            None => self.node("Raw(Raw::Any)".to_owned()),
        }
    }

    fn add(&mut self, i: usize, ty: &Type) {
        let mut wire: Vec<(u32, String)> = Vec::new();
        let mut fields: Vec<String> = Vec::new();
        let mut present: Vec<usize> = Vec::new();
        for field in &ty.fields {
            let node = self.node_of(field.kind, ty.package, &field.extras);
            if field.name.starts_with('(') {
                let nested = if field.kind.starts_with("io.") {
                    field.kind.to_owned()
                } else {
                    format!("{}.{}", ty.package, field.kind)
                };
                wire.push((field.tag, format!("Inline(TypeId({}))", self.index[&nested])));
                continue;
            }
            let position = fields.len();
            if field.tag != 0 {
                wire.push((field.tag, format!("Field({position})")));
            }
            let structural =
                !matches!(field.kind, "string" | "int32" | "int64" | "bool" | "double" | "bytes" | "Any");
            if field.mode.ends_with('a') || (field.mode == "vo" && structural) {
                present.push(position);
            }
            fields.push(render_field(field, node));
        }
        wire.sort();
        let wire: Vec<String> =
            wire.into_iter().map(|(tag, w)| format!("Wire {{ tag: {tag}, to: WireTo::{w} }}")).collect();
        let present: Vec<String> = present.iter().map(ToString::to_string).collect();
        writeln!(self.fields, "static F{i}: [Field; {}] = [\n{}];", fields.len(), fields.concat())
            .expect("string");
        writeln!(self.fields, "static W{i}: [Wire; {}] = [{}];", wire.len(), wire.join(", "))
            .expect("string");
        writeln!(
            self.types,
            "TypeDef::fixed({:?}, {}, &F{i}, &W{i}, &[{}]),",
            format!("{}.{}", ty.package, ty.name),
            ty.atomic,
            present.join(", ")
        )
        .expect("string");
        self.count += 1;
    }

    fn finish(self) -> String {
        let nodes: String = self.nodes.iter().map(|node| format!("Node::{node},\n")).collect();
        format!(
            "{}\nstatic TYPES: [TypeDef; {}] = [\n{}];\nstatic NODES: [Node; {}] = [\n{nodes}];\n",
            self.fields,
            self.count,
            self.types,
            self.nodes.len()
        )
    }
}

fn render_field(field: &Field, node: usize) -> String {
    let value = |key: &str| field.extras.iter().find_map(|e| e.strip_prefix(key));
    let go = match &field.mode[..1] {
        "p" => "Pointer",
        "s" => "Slice",
        "m" => "Map",
        _ => "Value",
    };
    let empty = match &field.mode[1..] {
        "a" => "Always",
        "z" => "OmitZero",
        _ => "Omit",
    };
    let patch = value("patch=").unwrap_or("");
    let has = |what: &str| patch.split(',').any(|p| p == what);
    format!(
        "Field::fixed({:?}, {node}, GoKind::{go}, WhenEmpty::{empty}, {}, {}, Patch {{ merge: {}, replace: {}, \
         retain_keys: {} }}, {:?}, {:?}),\n",
        field.name,
        field.tag,
        field.extras.contains(&"required"),
        has("merge"),
        has("replace"),
        has("retainKeys"),
        value("mergeKey="),
        value("default="),
    )
}

/// The values that fields may have, sorted by type and field.
fn enums(out: &mut String, types: &[Type]) {
    let mut rows = Vec::new();
    for (i, ty) in types.iter().enumerate() {
        for field in &ty.fields {
            if let Some(values) = field.extras.iter().find_map(|e| e.strip_prefix("enum=")) {
                let values: Vec<&str> = values.split('|').collect();
                rows.push(format!("(({i}, {:?}), &{values:?}),\n", field.name));
            }
        }
    }
    writeln!(out, "static ENUMS: [((u32, &str), &[&str]); {}] = [\n{}];", rows.len(), rows.concat())
        .expect("string");
}

/// What fields say of how their values are merged, sorted by type and field.
fn declared(out: &mut String, types: &[Type]) {
    let mut rows = Vec::new();
    for (i, ty) in types.iter().enumerate() {
        for field in &ty.fields {
            let fact = |key: &str| field.extras.iter().find_map(|e| e.strip_prefix(key));
            let (list, map) = (fact("list="), fact("map="));
            if list.is_some() || map.is_some() {
                rows.push(format!(
                    "(({i}, {:?}), Declared {{ list: {list:?}, map: {map:?} }}),\n",
                    field.name
                ));
            }
        }
    }
    writeln!(out, "static DECLARED: [((u32, &str), Declared); {}] = [\n{}];", rows.len(), rows.concat())
        .expect("string");
}

/// Types of which one field says which other one counts, sorted by type.
fn unions(out: &mut String, types: &[Type]) {
    let mut rows = Vec::new();
    for (i, ty) in types.iter().enumerate() {
        for union in &ty.unions {
            let (discriminator, members) = union.split_once(':').expect("a union has members");
            let members: Vec<(&str, &str)> =
                members.split(',').map(|m| m.split_once('=').expect("a member has a value")).collect();
            rows.push(format!(
                "({i}, Union {{ discriminator: {discriminator:?}, members: &{members:?} }}),\n"
            ));
        }
    }
    writeln!(out, "static UNIONS: [(u32, Union); {}] = [\n{}];", rows.len(), rows.concat()).expect("string");
}

fn kinds(out: &mut String, text: &str, index: &BTreeMap<String, usize>) {
    let mut rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    rows.sort();
    writeln!(out, "static KINDS: [Kind; {}] = [", rows.len()).expect("string");
    for row in rows {
        let ty = index[row[3]];
        writeln!(
            out,
            "Kind {{ group: {:?}, version: {:?}, kind: {:?}, ty: TypeId({ty}) }},",
            row[0], row[1], row[2]
        )
        .expect("string");
    }
    out.push_str("];\n");
}

fn list(text: &str) -> String {
    let quoted: Vec<String> = text.split(',').filter(|t| !t.is_empty()).map(|t| format!("{t:?}")).collect();
    format!("&[{}]", quoted.join(", "))
}

fn registry(text: &str) -> String {
    let mut out = format!("static RESOURCES: [Resource; {}] = [\n", text.lines().count());
    for line in text.lines() {
        let mut columns: Vec<&str> = line.split('\t').collect();
        columns.resize(10, "");
        let subresources: Vec<String> = columns[9]
            .split(';')
            .filter(|s| !s.is_empty())
            .map(|sub| {
                let (name, rest) = sub.split_once('(').expect("subresource has a kind");
                let (kind, verbs) =
                    rest.trim_end_matches(')').split_once(':').expect("subresource has verbs");
                format!("Subresource {{ name: {name:?}, kind: {kind:?}, verbs: {} }}", list(verbs))
            })
            .collect();
        writeln!(
            out,
            "Resource {{ group: {:?}, version: {:?}, plural: {:?}, singular: {:?}, kind: {:?}, scope: Scope::{}, verbs: {}, \
             short_names: {}, categories: {}, subresources: &[{}] }},",
            columns[0],
            columns[1],
            columns[2],
            columns[3],
            columns[4],
            columns[5],
            list(columns[6]),
            list(columns[7]),
            list(columns[8]),
            subresources.join(", ")
        )
        .expect("string");
    }
    out.push_str("];\n");
    out
}
