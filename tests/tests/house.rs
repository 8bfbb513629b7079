//! The house keeps its walls, and what users start from is what the code says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, path::Path};

use tests::harness::repository;

/// Which crates of ours a crate may import, as ARCHITECTURE.md has it.
const ARROWS: [(&str, &[&str]); 11] = [
    ("proxy/fhir", &[]),
    ("proxy/policy", &["fhir"]),
    ("proxy/identity", &["policy"]),
    ("proxy/mesh", &["policy"]),
    ("proxy/observe", &["policy", "fhir"]),
    ("proxy/dataplane", &["identity", "policy", "fhir", "mesh", "observe"]),
    ("proxy/node", &["dataplane", "identity", "policy", "fhir", "mesh", "observe", "loader", "abi"]),
    ("proxy/demo", &["fhirward", "certs"]),
    ("certs", &[]),
    ("ebpf-redirect/abi", &[]),
    ("ebpf-redirect/loader", &["abi"]),
];
const OURS: [&str; 11] = [
    "fhir",
    "policy",
    "identity",
    "mesh",
    "observe",
    "dataplane",
    "fhirward",
    "demo",
    "certs",
    "abi",
    "loader",
];
/// What `fhir` and `policy` must never know (invariant 2).
const IMPURE: [&str; 6] = ["tokio", "hyper", "reqwest", "tracing", "notify", "socket2"];

fn dependencies(folder: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(folder).join("Cargo.toml")).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if section == "[dependencies]"
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn crates_import_only_what_the_map_allows() {
    for (folder, allowed) in ARROWS {
        for dependency in dependencies(folder) {
            if OURS.contains(&dependency.as_str()) {
                assert!(allowed.contains(&dependency.as_str()), "{folder} imports {dependency}");
            }
        }
    }
    for folder in ["proxy/fhir", "proxy/policy"] {
        let found = dependencies(folder);
        assert!(IMPURE.iter().all(|name| !found.iter().any(|d| d == name)), "{folder}: {found:?}");
    }
}

#[test]
fn the_readmes_settings_reference_is_the_settings_types() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- settings:begin -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- settings:end -->").unwrap();
    assert_eq!(
        table,
        fhirward::settings::reference(),
        "put the output of `cargo run -- settings-reference` between the README's settings marks"
    );
}

#[test]
fn every_settings_file_loads_and_its_manifests_hold() {
    let folder = repository().join("config");
    let mut loaded = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let settings = fhirward::Settings::load(&path).unwrap();
            let checked = mesh::check(&settings.mesh.manifests, &settings.mesh);
            let errors: Vec<_> =
                checked.problems.iter().filter(|p| p.severity == policy::Severity::Error).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
            loaded += 1;
        }
    }
    assert!(loaded > 0);
}

#[test]
fn every_module_begins_with_its_purpose() {
    let mut bare = Vec::new();
    let mut long = BTreeMap::new();
    for folder in ["proxy", "certs", "tests", "xtask", "bench"] {
        visit(&repository().join(folder), &mut |path, text| {
            let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
            if !is_test && !text.starts_with("//!") {
                bare.push(path.display().to_string());
            }
            let lines = text.lines().count();
            if lines > 500 {
                long.insert(path.display().to_string(), lines);
            }
        });
    }
    assert!(bare.is_empty(), "modules without a purpose: {bare:#?}");
    assert!(long.is_empty(), "files over 500 lines: {long:#?}");
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
