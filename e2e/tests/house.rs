//! The house holds itself: dependencies point one way, files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate of the workspace may depend on. Components never name each other.
fn allowed(name: &str) -> &'static [&'static str] {
    match name {
        "api" | "proto" => &[],
        "store" => &["proto"],
        "client" => &[],
        "apiserver" => &["api", "store", "client", "proto"],
        "kubelet" => &["api", "client", "proto"],
        "scheduler" | "controller-manager" | "kubectl" => &["api", "client"],
        "proxy" | "dns" | "network" => &["client"],
        // Simulated nodes are the kubelet's own code over machines that are not there.
        "simulation" => &["client", "kubelet"],
        "deploy" => &[
            "api",
            "store",
            "client",
            "proto",
            "apiserver",
            "scheduler",
            "controller-manager",
            "kubelet",
            "proxy",
            "dns",
            "network",
            "kubectl",
            "simulation",
        ],
        "e2e" => &["deploy", "simulation", "client", "api", "store", "proto"],
        other => {
            panic!("the crate {other} has no place in the house yet: give it one here and in ARCHITECTURE.md")
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<_> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong = vec![];
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            if names.contains(to) && !allowed(name).contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed: {}", wrong.join(", "));
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text file");
            found.insert(path, text);
        }
    }
}

#[test]
fn files_fit_in_a_head_and_say_what_they_are_for() {
    let mut found = BTreeMap::new();
    sources(&repository(), &mut found);
    assert!(found.len() > 100, "the sources are where this test looks for them");
    let mut wrong = vec![];
    for (path, text) in &found {
        if text.lines().count() > 900 {
            wrong.push(format!("{} has more than 900 lines", path.display()));
        }
        if !text.lines().take(12).any(|line| line.starts_with("//!")) {
            wrong.push(format!("{} does not begin by saying what it is for", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_is_on_the_map() {
    let map = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        assert!(map.contains(&format!("{name}/")), "ARCHITECTURE.md does not show {name}/");
    }
}
