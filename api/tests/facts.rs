//! Checks that `data/*.tsv` is what the facts about the upstream API come down to.
//!
//! The facts live beside the repository (`../shared/api-facts`); without them there is nothing to compare with
//! and the test says so. Run with `UPDATE_FACTS=1` to write the compact tables anew.
//!
//! `types.tsv`: a line `@package` opens a package, a line without indentation names a type and its flags, an
//! indented line is a field: JSON name, type, mode, protobuf tag, further `key=value` facts. A type is a scalar,
//! the name of a type (in full when of another package), `[]T`, `{}T`, or `[w]T` for a list that is a message of
//! its own on the wire. A mode is go kind (`v`alue, `p`ointer, `s`lice, `m`ap) and when the encoder writes an
//! empty one (`a`lways, `o`mitempty, omit`z`ero). A name in brackets is a nested message whose fields stand
//! directly in the JSON object.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Packages that no server and no client of ours speaks.
const SKIPPED: &[&str] =
    &["testapigroup", "pkg.apis.example", "pkg.apis.audit", "custom_metrics", "external_metrics"];

/// Groups of packages of which the facts list no kinds.
const GROUPS: &[(&str, &str)] = &[
    ("io.k8s.api.admission.", "admission.k8s.io"),
    ("io.k8s.api.apidiscovery.", "apidiscovery.k8s.io"),
    ("io.k8s.api.extensions.", "extensions"),
    ("io.k8s.api.imagepolicy.", "imagepolicy.k8s.io"),
    ("io.k8s.metrics.pkg.apis.metrics.", "metrics.k8s.io"),
];

/// Kinds that carry no object or list metadata, and so cannot be told from plain types.
const PLAIN_KINDS: &[(&str, &str)] = &[
    ("io.k8s.api.admission.v1", "AdmissionReview"),
    ("io.k8s.api.admission.v1beta1", "AdmissionReview"),
    ("io.k8s.api.apps.v1beta1", "DeploymentRollback"),
    ("io.k8s.api.extensions.v1beta1", "DeploymentRollback"),
    ("io.k8s.api.core.v1", "NodeProxyOptions"),
    ("io.k8s.api.core.v1", "PodAttachOptions"),
    ("io.k8s.api.core.v1", "PodExecOptions"),
    ("io.k8s.api.core.v1", "PodLogOptions"),
    ("io.k8s.api.core.v1", "PodPortForwardOptions"),
    ("io.k8s.api.core.v1", "PodProxyOptions"),
    ("io.k8s.api.core.v1", "SerializedReference"),
    ("io.k8s.api.core.v1", "ServiceProxyOptions"),
];

/// Kinds of the meta package with the group they are published under.
const META_KINDS: &[(&str, &str)] = &[
    ("APIGroup", ""),
    ("APIGroupList", ""),
    ("APIResourceList", ""),
    ("APIVersions", ""),
    ("ApplyOptions", ""),
    ("CreateOptions", ""),
    ("DeleteOptions", ""),
    ("GetOptions", ""),
    ("List", ""),
    ("ListOptions", ""),
    ("PatchOptions", ""),
    ("Status", ""),
    ("UpdateOptions", ""),
    ("WatchEvent", ""),
    ("PartialObjectMetadata", "meta.k8s.io"),
    ("PartialObjectMetadataList", "meta.k8s.io"),
    ("Table", "meta.k8s.io"),
    ("TableOptions", "meta.k8s.io"),
];

/// What the facts do not say: types that are never on the protobuf wire, and a few columns.
const ADDED: &[(&str, &str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Table", "metadata", "ListMeta\tvo\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Table", "columnDefinitions", "[]TableColumnDefinition\tsa\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Table", "rows", "[]TableRow\tsa\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableColumnDefinition", "name", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableColumnDefinition", "type", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableColumnDefinition", "format", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableColumnDefinition", "description", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableColumnDefinition", "priority", "int32\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRow", "cells", "[]Any\tsa\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRow", "conditions", "[]TableRowCondition\tso\t0"),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.TableRow",
        "object",
        "io.k8s.apimachinery.pkg.runtime.RawExtension\tvo\t0",
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRowCondition", "type", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRowCondition", "status", "string\tva\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRowCondition", "reason", "string\tvo\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableRowCondition", "message", "string\tvo\t0"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.TableOptions", "includeObject", "string\tvo\t1"),
];

/// Schema defaults (`+default`) that the facts leave out.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "\"TCP\""),
];

#[derive(Clone, Debug, Default, PartialEq)]
struct Field {
    name: String,
    kind: String,
    mode: String,
    tag: u32,
    extras: Vec<String>,
}

#[derive(Debug, Default)]
struct Type {
    flags: Vec<String>,
    fields: Vec<Field>,
}

type Types = BTreeMap<String, Type>;

fn facts_dir() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let dir = root.parent()?.join("shared/api-facts");
    dir.is_dir().then_some(dir)
}

fn package_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(package, _)| package)
}

/// The Go form of a package name: the facts of OpenAPI write some with `-`.
fn normal(name: &str) -> String {
    name.replace("apiextensions-apiserver", "apiextensions_apiserver")
        .replace("kube-aggregator", "kube_aggregator")
}

/// A JSON type of the facts in the compact form.
fn json_type(json: &str, package: &str, wire: &str) -> String {
    if let Some(inner) = json.strip_prefix("list<").and_then(|j| j.strip_suffix('>')) {
        let wrapped = wire.starts_with("opt ");
        return format!("{}{}", if wrapped { "[w]" } else { "[]" }, json_type(inner, package, ""));
    }
    if let Some(inner) = json.strip_prefix("map<").and_then(|j| j.strip_suffix('>')) {
        let value_wire = wire.strip_prefix("map<string,").and_then(|w| w.strip_suffix('>'));
        let value_wire = value_wire.filter(|w| !matches!(*w, "string" | "bytes")).map(|w| format!("opt {w}"));
        return format!("{{}}{}", json_type(inner, package, value_wire.as_deref().unwrap_or("")));
    }
    match json {
        "string" => "string".into(),
        "integer:int32" => "int32".into(),
        "integer:int64" => "int64".into(),
        "boolean" => "bool".into(),
        "number:double" => "double".into(),
        "string:byte" => "bytes".into(),
        "any" | "json" => "Any".into(),
        other => {
            let name = normal(other.strip_prefix("ref:").unwrap_or_else(|| panic!("json type {other:?}")));
            relative(&name, package)
        }
    }
}

fn relative(name: &str, package: &str) -> String {
    if package_of(name) == package { name[package.len() + 1..].to_owned() } else { name.to_owned() }
}

/// A protobuf type of the facts in the compact form, for fields of which only the wire is described.
fn wire_type(wire: &str, package: &str, wrappers: &BTreeSet<String>) -> String {
    if let Some(inner) = wire.strip_prefix("map<string,").and_then(|w| w.strip_suffix('>')) {
        return format!("{{}}{}", wire_type(&format!("opt {inner}"), package, wrappers));
    }
    let (label, kind) = wire.split_once(' ').unwrap_or_else(|| panic!("wire type {wire:?}"));
    let list = if label == "rep" { "[]" } else { "" };
    if ["string", "int32", "int64", "bool", "double", "bytes"].contains(&kind) {
        return format!("{list}{kind}");
    }
    let full = match kind.strip_prefix(".k8s.io.") {
        Some(absolute) => format!("io.k8s.{absolute}"),
        None => format!("{package}.{kind}"),
    };
    if wrappers.contains(&full) {
        format!("{list}[w]string")
    } else {
        format!("{list}{}", relative(&full, package))
    }
}

fn mode(kind: &str, empty: &str, ty: &str, name: &str) -> String {
    let message = ty.starts_with("io.") || ty.starts_with(char::is_uppercase);
    let kind = match kind {
        "pointer" => "p",
        "slice" => "s",
        "map" => "m",
        // Named list and map types, of which the facts say `value`, and types of which they say nothing.
        _ if ty.starts_with("[]") || ty.starts_with("[w]") || ty == "bytes" => "s",
        _ if ty.starts_with("{}") => "m",
        "" if message && !["metadata", "spec", "status"].contains(&name) => "p",
        _ => "v",
    };
    let empty = match empty {
        "always" => "a",
        _ => "o",
    };
    format!("{kind}{empty}")
}

fn extras(columns: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    if columns[3] == "required" {
        out.push("required".into());
    }
    if !columns[4].is_empty() {
        out.push(format!("default={}", columns[4]));
    }
    for fact in columns[6].split_whitespace() {
        match fact.split_once('=') {
            Some(("list-type", value)) => out.push(format!("list={value}")),
            Some(("list-map-keys", value)) => out.push(format!("keys={value}")),
            Some(("map-type", value)) => out.push(format!("map={value}")),
            Some(("unions", value)) => out.push(format!("unions={value}")),
            _ => panic!("list or map fact {fact:?}"),
        }
    }
    let mut patch: Vec<&str> = columns[7].split(',').filter(|p| !p.is_empty()).collect();
    let key =
        patch.iter().position(|p| !["merge", "replace", "retainKeys"].contains(p)).map(|i| patch.remove(i));
    if !patch.is_empty() {
        out.push(format!("patch={}", patch.join(",")));
    }
    out.extend(key.map(|key| format!("mergeKey={key}")));
    out
}

fn read_types(text: &str) -> Types {
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .filter(|row: &Vec<&str>| !SKIPPED.iter().any(|skip| row[0].contains(skip)))
        .collect();
    let wrappers = wrappers(&rows);
    let mut types = Types::new();
    // Rows that describe JSON come first: wire rows of the same field only add to them.
    for row in rows.iter().filter(|row| row[2] != "(wire only)") {
        add_json_row(&mut types, row);
    }
    for row in rows.iter().filter(|row| row[2] == "(wire only)") {
        add_wire_row(&mut types, row, &wrappers);
    }
    for wrapper in wrappers {
        types.remove(&wrapper);
    }
    for (ty, field, line) in ADDED {
        let columns: Vec<&str> = line.split('\t').collect();
        let field = Field {
            name: (*field).into(),
            kind: columns[0].into(),
            mode: columns[1].into(),
            tag: columns[2].parse().unwrap(),
            extras: vec![],
        };
        let fields = &mut types.entry((*ty).into()).or_default().fields;
        if !fields.iter().any(|f| f.name == field.name) {
            fields.push(field);
        }
    }
    types
}

/// Messages that hold one repeated string and stand as a plain list in JSON.
fn wrappers(rows: &[Vec<&str>]) -> BTreeSet<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row[1].is_empty()) {
        *count.entry(row[0]).or_default() += 1;
    }
    rows.iter()
        .filter(|row| row[1] == "items" && row[9] == "rep string" && count[row[0]] == 1)
        .map(|row| row[0].to_owned())
        .collect()
}

fn add_json_row(types: &mut Types, row: &[&str]) {
    let name = normal(row[0]);
    let package = package_of(&name).to_owned();
    let ty = types.entry(name).or_default();
    if row[1].is_empty() {
        ty.flags = extras(row);
        return;
    }
    let tag = row[8].parse().unwrap_or(0);
    if row[2] == "inline" {
        let kind = wire_type(row[9], &package, &BTreeSet::new());
        ty.fields.push(Field { name: row[1].into(), kind, mode: "vo".into(), tag, extras: vec![] });
        return;
    }
    let kind = json_type(row[2], &package, row[9]);
    let mode = if row[10].is_empty() { String::new() } else { mode(row[10], row[11], &kind, row[1]) };
    ty.fields.push(Field { name: row[1].into(), mode, kind, tag, extras: extras(row) });
}

fn add_wire_row(types: &mut Types, row: &[&str], wrappers: &BTreeSet<String>) {
    let package = package_of(row[0]);
    let ty = types.entry(row[0].into()).or_default();
    let tag = row[8].parse().expect("a wire row has a tag");
    let name = match row[1] {
        // Protobuf names that differ from the JSON name.
        "aPIGroup" => "apiGroup",
        "jSONPath" => "JSONPath",
        name => name,
    };
    if let Some(field) = ty.fields.iter_mut().find(|field| field.name == name) {
        field.tag = tag;
        return;
    }
    let kind = wire_type(row[9], package, wrappers);
    let inline = row[10].is_empty() && name == "ingressRuleValue";
    let name = if inline { format!("({name})") } else { name.to_owned() };
    let mode = mode(row[10], row[11], &kind, name.trim_matches(['(', ')']));
    ty.fields.push(Field { name, mode, kind, tag, extras: extras(row) });
}

/// Brings the fields of nested messages up into the JSON object they stand in.
fn flatten(types: &mut Types) {
    let full = |kind: &str, package: &str| {
        if kind.starts_with("io.") { kind.to_owned() } else { format!("{package}.{kind}") }
    };
    // Twice, because a nested message may itself have a nested message.
    for _ in 0..2 {
        let names: Vec<String> = types.keys().cloned().collect();
        for name in names {
            let package = package_of(&name).to_owned();
            let inlines: Vec<Field> =
                types[&name].fields.iter().filter(|f| f.name.starts_with('(')).cloned().collect();
            for inline in inlines {
                let nested_name = full(&inline.kind, &package);
                let nested_package = package_of(&nested_name).to_owned();
                let nested: Vec<Field> = types[&nested_name].fields.clone();
                for mut field in nested.into_iter().filter(|f| !f.name.starts_with('(')) {
                    if nested_package != package {
                        field.kind = absolute(&field.kind, &nested_package, &package);
                    }
                    field.tag = 0;
                    let fields = &mut types.get_mut(&name).expect("listed").fields;
                    match fields.iter_mut().find(|own| own.name == field.name) {
                        Some(own) if own.mode.is_empty() => own.mode = field.mode,
                        Some(_) => {}
                        None => fields.push(field),
                    }
                }
            }
        }
    }
}

fn absolute(kind: &str, from: &str, to: &str) -> String {
    let (prefix, base) = match kind.rfind([']', '}']) {
        Some(at) => kind.split_at(at + 1),
        None => ("", kind),
    };
    let scalar = base.starts_with("io.") || base.starts_with(char::is_lowercase) || base == "Any";
    if scalar || from == to { kind.to_owned() } else { format!("{prefix}{from}.{base}") }
}

/// Group, version and kind of every kind, with the type it is of.
fn kinds(types: &Types, text: &str) -> BTreeSet<(String, String, String, String)> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let mut kinds = BTreeSet::new();
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for row in text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>()) {
        let name = normal(row[0]);
        let package = package_of(&name);
        if package != META {
            groups.insert(package[..=package.rfind('.').unwrap()].to_owned(), row[1].to_owned());
        }
        kinds.insert((row[1].to_owned(), row[2].to_owned(), row[3].to_owned(), name));
    }
    groups.extend(GROUPS.iter().map(|(package, group)| ((*package).to_owned(), (*group).to_owned())));
    for (name, ty) in types {
        let package = package_of(name);
        let kind = &name[package.len() + 1..];
        let Some(dot) = package.rfind('.') else { continue };
        let Some(group) = groups.get(&package[..=dot]) else { continue };
        let metadata = ty.fields.iter().find(|f| f.name == "metadata").map(|f| f.kind.as_str());
        let has_metadata = metadata.is_some_and(|m| m.ends_with("ObjectMeta") || m.ends_with("ListMeta"));
        let embedded = kind.ends_with("TemplateSpec") || kind == "PersistentVolumeClaimTemplate";
        let nested = ["APIResourceDiscovery"].contains(&kind);
        let plain = PLAIN_KINDS.contains(&(package, kind));
        if (has_metadata && !embedded && !nested && package != META) || plain {
            kinds.insert((group.clone(), package[dot + 1..].to_owned(), kind.to_owned(), name.clone()));
        }
    }
    for (kind, group) in META_KINDS {
        let versions: &[&str] = if *group == "meta.k8s.io" { &["v1", "v1beta1"] } else { &["v1"] };
        for version in versions {
            kinds.insert(((*group).into(), (*version).into(), (*kind).into(), format!("{META}.{kind}")));
        }
    }
    kinds
}

fn add_type_meta(types: &mut Types, kinds: &BTreeSet<(String, String, String, String)>) {
    for (_, _, kind, name) in kinds {
        if kind == "WatchEvent" {
            continue;
        }
        let fields = &mut types.get_mut(name).unwrap_or_else(|| panic!("no type {name}")).fields;
        for meta in ["apiVersion", "kind"] {
            if !fields.iter().any(|f| f.name == meta) {
                fields.push(Field {
                    name: meta.into(),
                    kind: "string".into(),
                    mode: "vo".into(),
                    ..Field::default()
                });
            }
        }
    }
}

fn render_types(types: &Types) -> String {
    let mut out = String::new();
    let mut package = "";
    for (name, ty) in types {
        if package_of(name) != package {
            package = package_of(name);
            writeln!(out, "@{package}").unwrap();
        }
        let mut line = vec![name[package.len() + 1..].to_owned()];
        line.extend(ty.flags.iter().filter(|f| !f.starts_with("unions=")).cloned());
        writeln!(out, "{}", line.join("\t")).unwrap();
        let mut fields: Vec<&Field> = ty.fields.iter().collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        for field in fields {
            let mode = if field.mode.is_empty() {
                mode("", "", &field.kind, &field.name)
            } else {
                field.mode.clone()
            };
            let mut columns =
                vec![String::new(), field.name.clone(), field.kind.clone(), mode, field.tag.to_string()];
            columns.extend(field.extras.iter().cloned());
            writeln!(out, "{}", columns.join("\t")).unwrap();
        }
    }
    out
}

const JSON_SCHEMA: &str = "io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Some fields of a JSON schema have another name on the wire, and the facts list both: the one in JSON without a tag.
/// They are one field, which goes by its name in JSON.
fn join_wire_names(schema: &mut Type) {
    let fields = &mut schema.fields;
    let untagged: Vec<String> = fields.iter().filter(|f| f.tag == 0).map(|f| f.name.clone()).collect();
    for name in untagged {
        let mut words = name.trim_start_matches('$').split('-');
        let mut wire = words.next().unwrap_or_default().to_owned();
        for word in words {
            let (first, rest) = word.split_at(1);
            wire += &first.to_uppercase();
            wire += rest;
        }
        let Some(at) = fields.iter().position(|f| f.name == wire) else { continue };
        let tag = fields.remove(at).tag;
        fields.iter_mut().find(|f| f.name == name).unwrap().tag = tag;
    }
}

/// What the facts do not say and upstream's published documents do: values, unions and defaults. Rows of
/// `type field addition...`; without a field the addition is the type's.
fn add(types: &mut Types, additions: &str) {
    for row in additions.lines() {
        let columns: Vec<&str> = row.split('\t').collect();
        let [name, field, extras @ ..] = columns.as_slice() else { panic!("{row}: too few columns") };
        let ty = types.get_mut(*name).unwrap_or_else(|| panic!("no type {name}"));
        let extras = extras.iter().map(|extra| (*extra).to_owned());
        if field.is_empty() {
            ty.flags.extend(extras);
            continue;
        }
        let found = ty.fields.iter_mut().find(|f| f.name == *field);
        found.unwrap_or_else(|| panic!("no field {name}.{field}")).extras.extend(extras);
    }
}

fn compact(dir: &Path) -> [(&'static str, String); 3] {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let mut types = read_types(&read("fields.tsv"));
    flatten(&mut types);
    let kinds = kinds(&types, &read("kinds.tsv"));
    add_type_meta(&mut types, &kinds);
    for (ty, name, value) in DEFAULTS {
        let field = types.get_mut(*ty).unwrap().fields.iter_mut().find(|f| f.name == *name).unwrap();
        field.extras.push(format!("default={value}"));
    }
    join_wire_names(types.get_mut(JSON_SCHEMA).unwrap());
    add(&mut types, include_str!("additions.tsv"));
    let creation = types.get_mut("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    creation.fields.iter_mut().find(|f| f.name == "creationTimestamp").unwrap().mode = "vz".into();
    let kinds = kinds.iter().fold(String::new(), |mut out, (group, version, kind, ty)| {
        writeln!(out, "{group}\t{version}\t{kind}\t{ty}").unwrap();
        out
    });
    let resources = read("resources.tsv").lines().skip(1).fold(String::new(), |mut out, line| {
        writeln!(out, "{line}").unwrap();
        out
    });
    [("types.tsv", render_types(&types)), ("kinds.tsv", kinds), ("resources.tsv", resources)]
}

#[test]
fn tables_are_the_facts() {
    let Some(dir) = facts_dir() else {
        println!("skipped: the facts about the upstream API are not beside this repository");
        return;
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    for (name, text) in compact(&dir) {
        let path = data.join(name);
        if std::env::var_os("UPDATE_FACTS").is_some() {
            std::fs::create_dir_all(&data).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = committed.lines().zip(text.lines()).position(|(a, b)| a != b);
        assert!(committed == text, "{name} differs from the facts, first at line {differs:?}");
    }
}
