//! Real components for the whole-proxy tests: Keycloak, HAPI's two servers, Prometheus, Newman, Envoy and SPIRE.
//!
//! `cargo xtask provision` makes them available; a start without that is an error that says so, never
//! a skip. Each runs on loopback, in a folder of its own, and dies with the value that stands for it,
//! or with the test process.

mod daemon;
mod envoy;
mod error;
mod hapi;
mod keycloak;
mod newman;
mod prometheus;
mod spire;

pub use daemon::Daemon;
pub use envoy::{Envoy, EnvoyStart, config as envoy_config};
pub use error::{RealError, Result};
pub use hapi::Hapi;
pub use keycloak::{BriefToken, Keycloak, KeycloakOptions, Rotation, TokenSet};
pub use newman::{Newman, Report};
pub use prometheus::{Prometheus, Sample};
pub use spire::Spire;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use xtask::provision::{self, Part};

/// How long one call to a real component may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// Ports that Linux does not use for outgoing connections by default (those begin at 32768).
const PORTS: Range<u16> = 10_000..32_000;
const PORT_ATTEMPTS: u32 = 100;

/// Held while a program begins, and while a port is tried: what is open at that moment is open in the new
/// process too, until it executes its program, and a port tried just then would stay taken as long.
static BEGINNING: Mutex<()> = Mutex::new(());

/// The folder of a provisioned part.
fn part(part: Part) -> Result<PathBuf> {
    provision::ready(part).map_err(|failure| RealError::NotProvisioned(failure.to_string()))
}

/// A loopback port that was free a moment ago, from below the range that the kernel takes the ports
/// of outgoing connections from: a server binds it only seconds later, or again after a restart under
/// load, and by then one of those would have been somebody's. No two calls of a process are given the
/// same, as the first may not have bound it yet.
pub async fn free_port() -> Result<u16> {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Suites run side by side: each begins elsewhere.
    let first = random_u16()?;
    let next = NEXT.get_or_init(|| AtomicU16::new(first));
    for _ in 0..PORT_ATTEMPTS {
        let port = PORTS.start + next.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        let _nobody_begins = BEGINNING.lock();
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    Err(RealError::Shape(format!("no free port found in {PORTS:?}")))
}

fn random_u16() -> Result<u16> {
    let mut bytes = [0_u8; 2];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| RealError::Shape("the system gives no random bytes".to_owned()))?;
    Ok(u16::from_ne_bytes(bytes))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A client that goes straight to loopback, whatever proxy the environment names.
fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(CALL_LIMIT).build()?)
}
