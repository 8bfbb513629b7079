//! Real components for the whole-proxy tests: Keycloak, HAPI's two servers, Prometheus and Newman.
//!
//! `cargo xtask provision` makes them available; a start without that is an error that says so, never
//! a skip. Each runs on loopback, in a folder of its own, and dies with the value that stands for it,
//! or with the test process.

mod daemon;
mod error;
mod hapi;
mod keycloak;
mod newman;
mod prometheus;

pub use daemon::Daemon;
pub use error::{RealError, Result};
pub use hapi::Hapi;
pub use keycloak::{BriefToken, Keycloak, KeycloakOptions, Rotation, TokenSet};
pub use newman::{Newman, Report};
pub use prometheus::{Prometheus, Sample};

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use xtask::provision::{self, Part};

/// How long one call to a real component may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The folder of a provisioned part.
fn part(part: Part) -> Result<PathBuf> {
    provision::ready(part).map_err(|failure| RealError::NotProvisioned(failure.to_string()))
}

/// A loopback port that was free a moment ago. Somebody else may take it before it is used.
async fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?.port())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A client that goes straight to loopback, whatever proxy the environment names.
fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(CALL_LIMIT).build()?)
}
