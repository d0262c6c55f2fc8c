//! Recorded exchanges with a real server (`../shared/golden`, when it is beside this repository), replayed against
//! the logic of the kinds alone: defaults, strategies, validation. What admission and the allocators of a server do is
//! left out of the comparison.
//!
//! `EXCHANGES=update/pod cargo test -p api --test exchanges -- --nocapture` prints each difference of some cases.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::codec::yaml;
use api::convert::convert;
use api::names::{GroupVersion, GroupVersionKind};
use api::patch::{merge, strategic};
use api::{defaults, field, registry, schema, strategy, validation};
use serde_json::{Map, Value, json};

const RUN: &str = "qqqqqq";

/// A server in a map: objects by the path of their storage.
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
}

struct Answer {
    status: u16,
    body: Value,
    warnings: Vec<String>,
}

struct Target {
    resource: &'static registry::Resource,
    namespace: String,
    name: String,
    subresource: String,
}

fn target(path: &str) -> Option<Target> {
    let path = path.split('?').next()?;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..]
            if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
        {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let resource = registry::by_resource(group, version, rest.first()?)?;
    let item = |i: usize| rest.get(i).copied().unwrap_or_default().to_owned();
    Some(Target { resource, namespace: namespace.to_owned(), name: item(1), subresource: item(2) })
}

impl Target {
    /// The kind and version that objects are kept in.
    fn stored_as(&self) -> GroupVersionKind {
        let (group, plural) = (self.resource.group, self.resource.plural);
        registry::storage_version(group, plural)
            .map_or_else(|| self.resource.gvk(), |version| version.with_kind(self.resource.kind))
    }

    /// Where an object is kept: one place for all versions of a kind.
    fn key(&self, name: &str) -> String {
        let group = if self.resource.plural == "events" { "" } else { self.resource.group };
        format!("{group}/{}/{}/{name}", self.resource.plural, self.namespace)
    }
}

fn refused(errors: &[field::Error]) -> Answer {
    let cause = |e: &field::Error| json!({"field": e.field.to_string(), "message": e.message(), "reason": e.kind.reason()});
    let body = json!({"details": {"causes": errors.iter().map(cause).collect::<Vec<_>>()}});
    Answer { status: 422, body, warnings: Vec::new() }
}

fn remove_managed(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

impl Server {
    fn create(&mut self, target: &Target, body: &Value) -> Option<Answer> {
        let (asked, gvk) = (target.resource.gvk(), target.stored_as());
        let mut object = target.resource.ty()?.decode_value(body.clone()).ok()?.value;
        defaults::apply(&asked, &mut object);
        object = convert(&asked, &gvk, object);
        let meta = object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
        meta.remove("managedFields");
        meta.remove("deletionTimestamp");
        meta.remove("deletionGracePeriodSeconds");
        if target.resource.namespaced() && !meta.contains_key("namespace") {
            meta.insert("namespace".into(), json!(target.namespace));
        }
        if let (Some(generate), None) = (meta.get("generateName").cloned(), meta.get("name")) {
            meta.insert("name".into(), json!(format!("{}abcde", generate.as_str()?)));
        }
        meta.insert("uid".into(), json!("0a1b2c3d-0000-4000-8000-00000000000a"));
        meta.insert("creationTimestamp".into(), json!("2026-01-02T03:04:05Z"));
        meta.remove("resourceVersion");
        let key = target.key(meta.get("name").and_then(Value::as_str).unwrap_or_default());
        admit(&gvk, &mut object);
        let mut warnings = strategy::prepare_for_create(&gvk, &mut object);
        let errors = validation::validate_create(&asked, &object);
        if !errors.is_empty() {
            return Some(refused(&errors));
        }
        if self.objects.contains_key(&key) {
            return None;
        }
        warnings.extend(strategy::warnings(&gvk, &object, None));
        self.store(key, &mut object);
        Some(Answer { status: 201, body: convert(&gvk, &asked, object), warnings })
    }

    fn store(&mut self, key: String, object: &mut Value) {
        self.version += 1;
        let kind = object["apiVersion"].as_str().and_then(GroupVersion::parse);
        let kind =
            kind.map(|version| version.with_kind(object["kind"].as_str().unwrap_or_default().to_owned()));
        if let Some(ty) = kind.and_then(|kind| schema::type_for(&kind)) {
            ty.forget_empty_lists(object);
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object.clone());
    }

    fn stored(&self, target: &Target) -> Option<Value> {
        self.objects.get(&target.key(&target.name)).cloned()
    }

    fn update(&mut self, target: &Target, mut object: Value) -> Option<Answer> {
        let (asked, gvk) = (target.resource.gvk(), target.stored_as());
        let old = self.stored(target)?;
        defaults::apply(&asked, &mut object);
        object = convert(&asked, &gvk, object);
        {
            let meta =
                object.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
            meta.remove("managedFields");
            for key in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                match old["metadata"].get(key) {
                    Some(value) if meta.get(key).is_none() || key != "uid" => {
                        meta.insert(key.into(), value.clone())
                    }
                    Some(_) => None,
                    None if key == "creationTimestamp" => meta.remove(key),
                    None => None,
                };
            }
            if target.resource.namespaced() && !meta.contains_key("namespace") {
                meta.insert("namespace".into(), json!(target.namespace));
            }
            if meta.get("resourceVersion").is_none() && strategy::allow_unconditional_update(&gvk) {
                meta.insert("resourceVersion".into(), old["metadata"]["resourceVersion"].clone());
            }
        }
        if gvk.kind == "Service" && target.subresource.is_empty() {
            keep_allocated(&mut object, &old);
        }
        let errors = if target.subresource.is_empty() {
            strategy::prepare_for_update(&gvk, &mut object, &old);
            validation::validate_update(&asked, &object, &old)
        } else {
            strategy::prepare_for_subresource_update(&gvk, &target.subresource, &mut object, &old);
            validation::validate_subresource_update(&asked, &target.subresource, &object, &old)
        };
        if !errors.is_empty() {
            return Some(refused(&errors));
        }
        let warnings = match target.subresource.as_str() {
            "" => strategy::warnings(&gvk, &object, Some(&old)),
            part => strategy::subresource_warnings(&gvk, part, &object, &old),
        };
        self.store(target.key(&target.name), &mut object);
        Some(Answer { status: 200, body: convert(&gvk, &asked, object), warnings })
    }

    fn patch(&mut self, target: &Target, kind: &str, patch: &Value) -> Option<Answer> {
        let ty = target.resource.ty()?;
        let mut object = convert(&target.stored_as(), &target.resource.gvk(), self.stored(target)?);
        match kind {
            "application/merge-patch+json" => merge::apply(&mut object, patch.clone()),
            "application/strategic-merge-patch+json" => object = strategic::apply(&object, patch, ty).ok()?,
            _ => return None,
        }
        let object = ty.decode_value(object).ok()?.value;
        self.update(target, object)
    }

    fn run(&mut self, step: &Value) -> Option<Answer> {
        let path = step["path"].as_str()?;
        let target = target(path)?;
        let raw = step.get("raw").and_then(Value::as_str).map(|raw| serde_json::from_str(raw).ok());
        let body = match (raw, step.get("body")) {
            (Some(raw), _) => raw?,
            (None, body) => body.cloned().unwrap_or_default(),
        };
        let dry = path.contains("dryRun=").then(|| self.objects.clone());
        let content = step["headers"]["Content-Type"].as_str().unwrap_or("application/json");
        let answer = match step["method"].as_str().unwrap_or("GET") {
            "POST" if target.name.is_empty() => self.create(&target, &body),
            "PUT" if target.subresource != "scale" => {
                let object = target.resource.ty()?.decode_value(body).ok()?.value;
                self.update(&target, object)
            }
            "PATCH" if target.subresource != "scale" => self.patch(&target, content, &body),
            "DELETE" => {
                self.objects.remove(&target.key(&target.name));
                None
            }
            _ => None,
        };
        if let Some(objects) = dry {
            self.objects = objects;
        }
        answer
    }
}

/// The parts of admission and allocation that later validation looks at.
fn admit(gvk: &GroupVersionKind, object: &mut Value) {
    let finalizer = match &*gvk.kind {
        "PersistentVolumeClaim" => "kubernetes.io/pvc-protection",
        "PersistentVolume" => "kubernetes.io/pv-protection",
        _ => "",
    };
    if !finalizer.is_empty() {
        let list =
            object["metadata"].as_object_mut().unwrap().entry("finalizers").or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(json!(finalizer));
    }
    if gvk.kind == "Pod" {
        let spec = object["spec"].as_object_mut().unwrap();
        spec.entry("serviceAccountName").or_insert(json!("default"));
        spec.entry("priority").or_insert(json!(0));
        spec.entry("preemptionPolicy").or_insert(json!("PreemptLowerPriority"));
    }
    if gvk.kind == "Service" {
        let spec = object["spec"].as_object_mut().unwrap();
        if spec.get("type") != Some(&json!("ExternalName")) {
            spec.entry("clusterIP").or_insert(json!("10.0.0.7"));
            let ip = spec["clusterIP"].clone();
            spec.entry("clusterIPs").or_insert(json!([ip]));
            spec.entry("ipFamilies").or_insert(json!(["IPv4"]));
            spec.entry("ipFamilyPolicy").or_insert(json!("SingleStack"));
        }
    }
}

/// As a server's allocators do: what an update leaves out stays.
fn keep_allocated(object: &mut Value, old: &Value) {
    let (new, old) = (object["spec"].as_object_mut().unwrap(), old["spec"].as_object().unwrap());
    let is = |spec: &Map<String, Value>, kind: &str| spec.get("type").is_some_and(|t| t == kind);
    if is(new, "ExternalName") || is(old, "ExternalName") {
        return;
    }
    let given = new.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let same = given.is_empty() || old.get("clusterIP") == Some(&json!(given));
    if given.is_empty() {
        old.get("clusterIP").into_iter().for_each(|ip| drop(new.insert("clusterIP".into(), ip.clone())));
    }
    if same {
        if let Some(ips) = old.get("clusterIPs") {
            new.entry("clusterIPs").or_insert(ips.clone());
        }
    } else {
        new.insert("clusterIPs".into(), json!([given]));
    }
    for key in ["ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = old.get(key) {
            new.entry(key).or_insert(value.clone());
        }
    }
}

/// What a server's admission adds to objects, taken out again.
fn plain(gvk_kind: &str, mut object: Value) -> Value {
    remove_managed(&mut object);
    if let Some(map) = object["metadata"].as_object_mut() {
        map.remove("resourceVersion");
        map.remove("selfLink");
    }
    let pod_specs = match gvk_kind {
        "Pod" => vec![&mut object["spec"]],
        _ => vec![],
    };
    for spec in pod_specs {
        let Some(spec) = spec.as_object_mut() else { continue };
        for key in ["serviceAccountName", "serviceAccount", "priority", "preemptionPolicy"] {
            spec.remove(key);
        }
        let without = |spec: &mut Map<String, Value>, key: &str, test: fn(&Value) -> bool| {
            if let Some(list) = spec.get_mut(key).and_then(Value::as_array_mut) {
                list.retain(|item| !test(item));
                if list.is_empty() {
                    spec.remove(key);
                }
            }
        };
        let is_token = |item: &Value| item["name"].as_str().is_some_and(|n| n.starts_with("kube-api-access"));
        without(spec, "volumes", is_token);
        without(spec, "tolerations", |item| {
            matches!(
                item["key"].as_str(),
                Some("node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable")
            )
        });
        for key in ["containers", "initContainers", "ephemeralContainers"] {
            for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                without(container.as_object_mut().unwrap(), "volumeMounts", is_token);
            }
        }
    }
    object
}

fn same_text(want: &str, got: &str) -> bool {
    let got = got.replace(&format!("-{RUN}"), "").replace(RUN, "<run>");
    if want == got {
        return true;
    }
    // A mask stands for anything.
    let mut parts = Vec::new();
    let mut rest = want;
    while let Some(start) = rest.find('<') {
        let Some(end) = rest[start..].find('>') else { break };
        parts.push(&rest[..start]);
        rest = &rest[start + end + 1..];
    }
    if parts.is_empty() {
        return false;
    }
    let mut at = got.as_str();
    for (i, part) in parts.iter().enumerate() {
        match at.find(part) {
            Some(p) if i > 0 || p == 0 => at = &at[p + part.len()..],
            _ => return false,
        }
    }
    at.ends_with(rest)
}

fn diff(want: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                match got.get(key).or_else(|| got.get(&key.replace("<run>", RUN))) {
                    Some(other) => diff(value, other, &format!("{path}.{key}"), out),
                    None => out.push(format!("{path}.{key}: missing, want {value}")),
                }
            }
            for (key, value) in got {
                let key = key.replace(&format!("-{RUN}"), "").replace(RUN, "<run>");
                if !want.contains_key(&key) {
                    out.push(format!("{path}.{key}: unexpected {value}"));
                }
            }
        }
        (Value::Array(want), Value::Array(got)) => {
            if want.len() != got.len() {
                out.push(format!("{path}: want {} items, got {}: {got:?}", want.len(), got.len()));
            }
            for (i, (want, got)) in want.iter().zip(got).enumerate() {
                diff(want, got, &format!("{path}[{i}]"), out);
            }
        }
        (Value::String(want), Value::String(got)) if same_text(want, got) => {}
        (Value::String(want), _) if want.starts_with('<') && want.ends_with('>') => {}
        (want, got) if want == got => {}
        (want, got) => out.push(format!("{path}: want {want}, got {got}")),
    }
}

fn causes(body: &Value) -> Vec<String> {
    let all = body["details"]["causes"].as_array().into_iter().flatten();
    all.map(|c| {
        format!("{}: {}", c["field"].as_str().unwrap_or_default(), c["message"].as_str().unwrap_or_default())
    })
    .collect()
}

fn compare(target: &Target, want: &Value, got: &Answer) -> Vec<String> {
    let mut out = Vec::new();
    let status = want["status"].as_u64().unwrap_or_default();
    if status == 422 || got.status == 422 {
        let (want, got) = (causes(&want["body"]), causes(&got.body));
        let same = want.len() == got.len() && want.iter().zip(&got).all(|(want, got)| same_text(want, got));
        if !same || status != 422 {
            out.push(format!("status {status}"));
            out.extend(want.iter().map(|w| format!("   want {w}")));
            out.extend(got.iter().map(|g| format!("   got  {g}")));
        }
        return out;
    }
    let kind = &target.resource.kind;
    if want["body"]["kind"] == **kind {
        diff(&plain(kind, want["body"].clone()), &plain(kind, got.body.clone()), "", &mut out);
    }
    let mut warnings: Vec<String> =
        got.warnings.iter().map(|w| format!("299 - {}", field::quote(w))).collect();
    warnings.sort();
    let wanted: Vec<String> =
        want["warnings"].as_array().into_iter().flatten().map(|w| w.as_str().unwrap().to_owned()).collect();
    let ours = |w: &String| {
        !w.contains("unknown field") && !w.contains("duplicate field") && !w.contains("is deprecated in v")
    };
    let wanted: Vec<String> = wanted.into_iter().filter(ours).collect();
    if wanted.len() != warnings.len() || !wanted.iter().zip(&warnings).all(|(w, g)| same_text(w, g)) {
        out.push(format!("warnings want {wanted:?}"));
        out.push(format!("warnings got  {warnings:?}"));
    }
    out
}

fn substitute(value: &mut Value, namespace: &str, saved: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            *text = text.replace("{ns}", namespace).replace("{run}", RUN);
            if text.contains("{kb}") || text.contains("{mb}") {
                *text = text.replace("{kb}", &"x".repeat(1 << 10)).replace("{mb}", &"x".repeat(1 << 20));
            }
            for (key, value) in saved {
                *text = text.replace(&format!("{{{key}}}"), value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, namespace, saved)),
        Value::Object(map) => {
            *map = std::mem::take(map)
                .into_iter()
                .map(|(key, mut value)| {
                    substitute(&mut value, namespace, saved);
                    (key.replace("{run}", RUN).replace("{ns}", namespace), value)
                })
                .collect();
        }
        _ => {}
    }
}

fn golden_dir() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.parent()?.join("shared/golden");
    dir.is_dir().then_some(dir)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn kinds_answer_as_recorded() {
    let Some(dir) = golden_dir() else {
        println!("skipped: no recorded exchanges beside this repository");
        return;
    };
    let only = std::env::var("EXCHANGES").unwrap_or_default();
    // What the recorder's YAML took for text.
    let words = regex::Regex::new(r"(: |[{,]|, )(y|n|1e9)([,}:\]])").unwrap();
    let (mut right, mut wrong) = (0, 0);
    for folder in ["create", "validate", "update"] {
        for path in files(&dir.join("cases").join(folder)) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !format!("{folder}/{name}").contains(&only) {
                continue;
            }
            let text = words.replace_all(&fs::read_to_string(&path).unwrap(), "$1'$2'$3").into_owned();
            let Ok(case) = yaml::decode(text.as_bytes()) else { continue };
            let recorded = dir.join("recorded").join(folder).join(format!("{name}.json"));
            let Ok(recorded) = fs::read(recorded) else { continue };
            let recorded: Value = serde_json::from_slice(&recorded).unwrap();
            let namespace = format!("g-{}-{RUN}", case["name"].as_str().unwrap_or(&name));
            let mut server = Server { objects: BTreeMap::new(), version: 1 };
            let mut saved = BTreeMap::new();
            for (i, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
                let mut step = step.clone();
                substitute(&mut step, &namespace, &saved);
                let id = step["id"].as_str().map_or_else(|| i.to_string(), str::to_owned);
                let want = recorded.as_array().unwrap().iter().find(|answer| answer["step"] == *id);
                let Some(got) = server.run(&step) else { continue };
                for (key, at) in step["save"].as_object().into_iter().flatten() {
                    let mut value = &got.body;
                    for part in at.as_str().unwrap().split('.') {
                        value = part.parse::<usize>().map_or_else(|_| &value[part], |i| &value[i]);
                    }
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    saved.insert(key.clone(), text);
                }
                let Some(want) = want else { continue };
                if !matches!(want["status"].as_u64(), Some(200 | 201 | 422)) {
                    continue;
                }
                let Some(target) = target(step["path"].as_str().unwrap()) else { continue };
                let mut found = compare(&target, want, &got);
                let ignored = |line: &String| {
                    step["ignore"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|p| line.contains(p.as_str().unwrap_or("?")))
                };
                found.retain(|line| !ignored(line));
                if found.is_empty() {
                    right += 1;
                } else {
                    wrong += 1;
                    println!("{folder}/{name} {id}:");
                    found.iter().take(40).for_each(|line| {
                        println!(
                            "    {}",
                            line.chars()
                                .take(if only.is_empty() { 1500 } else { 100_000 })
                                .collect::<String>()
                        )
                    });
                }
            }
        }
    }
    println!("{right} right, {wrong} wrong");
}
