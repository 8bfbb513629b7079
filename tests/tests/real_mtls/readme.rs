//! The lines of the README's chapter, run as they stand.

use std::process::Command;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_lines_do_what_they_say() {
    let (proxy, _store) = open("").await;
    mint(&proxy, "client"); // what `certs mint --ca ca --out client` does
    let mut ran = 0;
    for line in readme("sh").lines() {
        let (command, says) = line.split_once("   # ").unwrap_or((line, ""));
        if command.starts_with("fhirward") || command.starts_with("certs") {
            continue;
        }
        let command = command.replace("127.0.0.1:8443", &proxy.address("fhir").to_string());
        let folder = proxy.folder();
        let run = tokio::task::spawn_blocking(move || {
            Command::new("sh").args(["-c", &command]).current_dir(folder).output().unwrap()
        });
        let output = run.await.unwrap();
        assert!(text(&output).contains(says), "{line}\n{}", text(&output));
        ran += 1;
    }
    assert_eq!(ran, 4, "the README has other lines now");
    counted(&proxy, "full", 1.0).await;
    counted(&proxy, "no_certificate", 1.0).await;
}
