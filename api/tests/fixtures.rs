//! Upstream's serialization fixtures: every kind in JSON, YAML and protobuf.
//!
//! The fixtures lie beside the repository (`../shared/upstream-data/api-testdata`); without them the test says so.

#![allow(clippy::unwrap_used)] // a test may fail anywhere

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::codec::{protobuf, yaml};
use api::names::GroupVersionKind;
use api::schema;

fn fixtures_dir() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let dir = root.parent()?.join("shared/upstream-data/api-testdata/v1.36");
    dir.is_dir().then_some(dir)
}

/// `apps.v1.Deployment` as group, version and kind.
fn gvk(stem: &str) -> GroupVersionKind {
    let mut parts = stem.rsplitn(3, '.');
    let (kind, version, group) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let group = if group == "core" { "" } else { group };
    GroupVersionKind::new(group.to_owned(), version.to_owned(), kind.to_owned())
}

fn check(dir: &Path, stem: &str) -> Result<(), String> {
    let read =
        |extension: &str| std::fs::read(dir.join(format!("{stem}.{extension}"))).map_err(|e| e.to_string());
    let ty = schema::type_for(&gvk(stem)).ok_or("no type")?;
    let json = ty.decode_slice(&read("json")?).map_err(|e| format!("json: {e}"))?;
    if !json.strict_errors.is_empty() {
        return Err(format!("json: {:?}", json.strict_errors));
    }
    let plain: serde_json::Value = serde_json::from_slice(&read("json")?).map_err(|e| e.to_string())?;
    if plain != json.value {
        return Err(format!("json decodes to\n{}\nnot to\n{plain}", json.value));
    }
    let yaml = yaml::decode(&read("yaml")?).map_err(|e| format!("yaml: {e}"))?;
    let yaml = ty.decode_value(yaml).map_err(|e| format!("yaml: {e}"))?;
    if yaml != json {
        return Err(format!("yaml decodes to\n{}\nnot to\n{}", yaml.value, json.value));
    }
    let bytes = read("pb")?;
    let unknown = protobuf::Unknown::open(&bytes).map_err(|e| format!("pb: {e}"))?;
    let value = protobuf::decode_as(&unknown, ty).map_err(|e| format!("pb: {e}"))?;
    if value != json.value {
        return Err(format!("pb decodes to\n{value}\nnot to\n{}", json.value));
    }
    let encoded = protobuf::encode(&json.value, ty).map_err(|e| format!("encode: {e}"))?;
    if encoded != bytes {
        let at = encoded.iter().zip(&bytes).position(|(a, b)| a != b);
        return Err(format!(
            "encodes to {} bytes instead of {}, first differing at {at:?}",
            encoded.len(),
            bytes.len()
        ));
    }
    let text = yaml::encode(&json.value);
    let again = yaml::decode(text.as_bytes()).map_err(|e| format!("own yaml: {e}"))?;
    if again != json.value {
        return Err(format!("own yaml decodes to\n{again}"));
    }
    Ok(())
}

#[test]
fn every_fixture_has_one_value_in_three_forms() {
    let Some(dir) = fixtures_dir() else {
        println!("skipped: upstream's fixtures are not beside this repository");
        return;
    };
    let stems: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .filter_map(|entry| entry.unwrap().path().file_stem()?.to_str().map(str::to_owned))
        .filter(|stem| stem.contains('.'))
        .collect();
    let failures: Vec<String> = stems
        .iter()
        .filter_map(|stem| check(&dir, stem).err().map(|error| format!("{stem}: {error}")))
        .collect();
    println!("{} of {} fixtures agree", stems.len() - failures.len(), stems.len());
    assert!(stems.len() > 150, "only {} fixtures found", stems.len());
    assert!(
        failures.is_empty(),
        "{} of {} fixtures fail:\n{}",
        failures.len(),
        stems.len(),
        failures.join("\n")
    );
}
