#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod hostile;
mod life;

use std::{sync::Arc, time::Duration};

use policy::SpiffeId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::{Handle, Supply, Svid};
use crate::{
    Clock,
    spiffe::{CertificateSettings, WorkloadApiSettings, parse_id},
};
use agent::Agent;

const ID: &str = "spiffe://cluster.local/ns/datamesh/sa/fhir-server";
const OTHER: &str = "spiffe://cluster.local/ns/datamesh/sa/other";
/// A slow machine is allowed for.
const SOON: Duration = Duration::from_secs(30);
/// Nothing that a test waits for may come from a retry that long.
const NEVER_MS: u64 = 600_000;

fn id() -> SpiffeId {
    parse_id(ID).unwrap()
}

/// With pauses between retries of at most this, and this much patience with the agent.
fn start(agent: &Agent, retry_ms: u64, timeout_ms: u64) -> Arc<Supply> {
    let api = WorkloadApiSettings { socket: agent.socket(), timeout_ms };
    let settings = CertificateSettings {
        workload_api: Some(api),
        retry_min_ms: retry_ms,
        retry_max_ms: retry_ms,
        ..CertificateSettings::default()
    };
    Supply::start(settings, ("cluster.local", &[]), Clock::System, CancellationToken::new()).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn svid_that(handle: &Handle, what: &str, mut holds: impl FnMut(&Svid) -> bool) -> Arc<Svid> {
    let held = || handle.svid().borrow().clone();
    until(what, || held().is_some_and(|svid| holds(&svid))).await;
    held().unwrap()
}

/// Waits for a problem of the one workload that says this.
async fn problem(supply: &Supply, part: &str) {
    let said = || supply.status().first().and_then(|one| one.problem.clone());
    let began = Instant::now();
    while !said().is_some_and(|said| said.contains(part)) {
        assert!(began.elapsed() < SOON, "expected {part:?}: {:?}", said());
        sleep(Duration::from_millis(10)).await;
    }
}
