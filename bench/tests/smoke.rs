//! The benchmark itself, as briefly as can be: that it starts peers, drives them and believes no wrong answer.
//! No figure is looked at: the machine that runs this may be busy.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

#[test]
fn ours_over_mtls() {
    let json = run(&["--only", "mtls", "--peers", "fhirward", "--certificates", "3"], |said| {
        assert!(said.contains("| HBONE: 1 MiB raw up, 8 tunnels | "), "{said}");
    });
    let rows = json["mtls"]["rows"].as_array().unwrap();
    let measured = rows.iter().filter(|row| row["cells"][0]["per_cpu_second"].as_f64() > Some(0.0));
    assert_eq!(measured.count(), bench::mtls::ALL.len(), "{json}");
    assert!(json["mtls"]["memory"][0]["cells"][0]["all"].as_u64() > Some(0), "{json}");
}

/// Runs it for one short round: its figures.
fn run(arguments: &[&str], look: impl FnOnce(&str)) -> serde_json::Value {
    let proxy = ::tests::harness::binary().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fhirward-bench"))
        .args(arguments)
        .args(["--rounds", "1", "--seconds", "0.2", "--tokens", "300", "--ours"])
        .arg(proxy.parent().unwrap())
        .arg("--work")
        .arg(folder.path().join("work"))
        .arg("--results")
        .arg(folder.path().join("results"))
        .output()
        .unwrap();
    let (said, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{noted}");
    look(&said);
    let file = std::fs::read_dir(folder.path().join("results")).unwrap().next().unwrap().unwrap().path();
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn ours_and_the_bare_proxy_side_by_side() {
    let json = run(&["--only", "read,h2,up,anonymous", "--peers", "bare,fhirward"], |said| {
        let rows = said.lines().filter(|line| line.starts_with("| fhirward | ")).count();
        assert_eq!(rows, 4, "{said}");
    });
    let ratio = json["rows"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["cells"][0]["per_cpu_second"].as_f64() > Some(0.0));
    assert_eq!(ratio.count(), 7, "the bare proxy has no policy to deny by: {json}");
    assert!(json["reach"].as_array().unwrap().iter().any(|goal| goal["reached"].is_boolean()));
}
