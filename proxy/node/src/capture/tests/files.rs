//! File descriptors run out, in a process of its own.

use std::{fs::File, time::Duration};

use super::{Agent, Shared, eventually, pod, serves_all, settings, start_at_socket};
use crate::settings::{CaptureSettings, StockSettings};

/// Where the child finds the agent, which is its parent.
const SOCKET: &str = "FHIRWARD_TEST_AGENT_SOCKET";
const NAME: &str = "capture::tests::files::descriptors_that_run_out_are_missed_for_as_long_as_they_are";

#[tokio::test]
async fn descriptors_that_run_out_are_missed_for_as_long_as_they_are() {
    if let Ok(socket) = std::env::var(SOCKET) {
        return run_out(socket.into()).await;
    }
    let shared = Shared::new();
    let _agent = Agent::start(&shared);
    shared.pods.send_replace(vec![pod(1)]);
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME]).env(SOCKET, shared.socket()).kill_on_drop(true);
    let output = child.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child did run it");
}

async fn run_out(socket: std::path::PathBuf) {
    let settings =
        CaptureSettings { stock: StockSettings { wait_ms: 100, ..settings().stock }, ..settings() };
    let mut proxy = start_at_socket(socket, &settings);
    let served = proxy.taken().await;
    proxy.until("it is in service", serves_all).await;
    eventually("filled", || proxy.held() == 12).await;
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(100);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut hog = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hog.push(file);
    }
    // The stock goes; each socket's descriptor is used up at once.
    let mut got = Vec::new();
    while let Ok(socket) = proxy.socket(&served).await {
        got.push(socket);
    }
    assert!(got.len() >= 4, "what was there was given: {}", got.len());
    eventually("it is refused", || proxy.report.tallies().sockets[0].refused.get() > 0).await;
    drop(got);
    drop(hog);
    let began = std::time::Instant::now();
    while proxy.socket(&served).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never recovers");
    }
    proxy.until("the agent is reached", |standing| standing.agent).await;
    assert!(serves_all(&proxy.report.standing()));
}
