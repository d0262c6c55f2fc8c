//! Decoding errors as a real server answered them (`../shared/golden`, when it is beside this repository).
//!
//! Of every recorded request that creates a built-in object, the body is decoded and the error compared with what
//! stands in the answer behind "cannot be handled as a KIND: ".

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use std::path::{Path, PathBuf};

use api::codec::yaml;
use api::{registry, schema};
use serde_json::Value;

fn golden_dir() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let dir = root.parent()?.join("shared/golden");
    dir.is_dir().then_some(dir)
}

/// The resource that a path of a collection names.
fn resource(path: &str) -> Option<&'static registry::Resource> {
    let path = path.split('?').next()?;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    match rest {
        ["namespaces", _, plural] | [plural] => registry::by_resource(group, version, plural),
        _ => None,
    }
}

/// What the decoder has against a body: the error, or the strict errors in one.
fn verdict(resource: &registry::Resource, step: &Value) -> Option<String> {
    let ty = resource.ty()?;
    let is_yaml =
        step["headers"]["Content-Type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case("application/yaml"));
    let mut strict = Vec::new();
    let decoded = match (step.get("raw").and_then(Value::as_str), step.get("body")) {
        (Some(raw), _) if is_yaml => {
            let loaded = yaml::load(raw.as_bytes()).ok()?;
            strict.extend(loaded.strict_error());
            ty.decode_value(loaded.value)
        }
        (Some(raw), _) => ty.decode_slice(raw.as_bytes()),
        (None, Some(body)) => ty.decode_value(body.clone()),
        _ => return None,
    };
    match decoded {
        Ok(decoded) => {
            strict.extend(decoded.strict_errors);
            let query = step["path"].as_str()?.split_once('?').map_or("", |(_, query)| query);
            let directive = query.split('&').find_map(|part| part.strip_prefix("fieldValidation="));
            let is_strict = directive == Some("Strict");
            (is_strict && !strict.is_empty()).then(|| schema::strict_message(&strict))
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Order in which a body given as an object was sent is not known, so lists of errors are compared sorted.
fn normal(message: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        message.split(", ").map(|part| part.replace("strict decoding error: ", "")).collect();
    parts.sort();
    parts
}

#[test]
fn decoding_errors_are_the_recorded_ones() {
    let Some(dir) = golden_dir() else {
        println!("skipped: no recorded exchanges beside this repository");
        return;
    };
    let (mut right, mut wrong) = (0, Vec::new());
    for folder in std::fs::read_dir(dir.join("cases")).unwrap().map(|entry| entry.unwrap().path()) {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(case) = yaml::decode(&std::fs::read(&path).unwrap()) else { continue };
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let recorded =
                dir.join("recorded").join(folder.file_name().unwrap()).join(format!("{name}.json"));
            let Ok(recorded) = std::fs::read(recorded) else { continue };
            let recorded: Value = serde_json::from_slice(&recorded).unwrap();
            for step in case["steps"].as_array().into_iter().flatten() {
                if !matches!(step["method"].as_str(), Some("POST")) {
                    continue;
                }
                let Some(resource) = step["path"].as_str().and_then(resource) else { continue };
                let mut answers = recorded.as_array().into_iter().flatten();
                let Some(answer) = answers.rfind(|answer| answer["step"] == step["id"]) else {
                    continue;
                };
                let message = answer["body"]["message"].as_str().unwrap_or_default();
                let marker = format!("cannot be handled as a {}: ", resource.kind);
                let wanted = message.split_once(&marker).map(|(_, error)| error);
                let created = answer["status"] == 201 || answer["status"] == 422;
                match (verdict(resource, step), wanted) {
                    // Not a matter of decoding.
                    (None, Some(wanted)) if wanted.starts_with("converting ") => {}
                    // The recorder's YAML took a plain `y` or `n` for text, so that is what it sent.
                    (Some(found), None)
                        if step.get("raw").is_none() && found.contains("cannot unmarshal bool") => {}
                    (None, Some(wanted)) => {
                        wrong.push(format!("{name}/{}: accepted, not {wanted}", step["id"]))
                    }
                    (Some(found), None) if created => wrong.push(format!("{name}/{}: {found}", step["id"])),
                    (Some(found), Some(wanted)) if normal(&found) != normal(wanted) => {
                        wrong.push(format!("{name}/{}: {found}\n   wanted {wanted}", step["id"]));
                    }
                    (_, None) if !created => {}
                    _ => right += 1,
                }
            }
        }
    }
    println!("{right} recorded verdicts agree");
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), wrong.len() + right, wrong.join("\n"));
    assert!(right > 200, "only {right} verdicts");
}
