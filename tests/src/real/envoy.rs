//! A real Envoy, with a configuration of the caller's.

pub mod config;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::{client, free_port, loopback, part};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How an Envoy is started.
#[derive(Debug, Clone, Copy)]
pub struct EnvoyStart<'a> {
    /// The whole bootstrap configuration, as JSON or YAML.
    pub config: &'a str,
    /// Where the configuration puts the admin server; readiness is asked for there.
    pub admin: SocketAddr,
    /// How many worker threads.
    pub concurrency: u32,
    /// Where given, the program and arguments that Envoy is started by, such as `taskset -c 1`.
    pub prefix: &'a [&'a str],
}

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    daemon: Daemon,
    http: reqwest::Client,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Envoy {
    /// Starts an Envoy with one worker, with these listeners and clusters ([`config`]).
    ///
    /// # Errors
    /// As [`Envoy::start`].
    pub async fn with(listeners: &[Value], clusters: &[Value]) -> Result<Self> {
        let admin = loopback(free_port().await?);
        let config = config::bootstrap(admin, listeners, clusters);
        Self::start(EnvoyStart { config: &config, admin, concurrency: 1, prefix: &[] }).await
    }

    /// Starts an Envoy and waits until all its listeners and clusters are up.
    ///
    /// # Errors
    /// When it is not provisioned, refuses its configuration, or does not come up.
    pub async fn start(start: EnvoyStart<'_>) -> Result<Self> {
        let program = part(Part::Envoy)?.join("bin/envoy");
        let folder = run_folder("envoy")?;
        fs::write(folder.path().join("envoy.yaml"), start.config)?;
        let mut words = start.prefix.iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(folder.path());
        // Several Envoys on one machine would otherwise quarrel about shared memory.
        command.args(["-c", "envoy.yaml", "--disable-hot-restart", "-l", "warning", "--concurrency"]);
        command.arg(start.concurrency.to_string());
        let mut daemon = Daemon::spawn("envoy", &command, &folder.path().join("log"))?;
        let (http, probe) = (client()?, format!("http://{}/ready", start.admin));
        let ready = async |_: &Daemon| {
            http.get(&probe).send().await.is_ok_and(|response| response.status().is_success())
        };
        daemon.wait_until(START_LIMIT, ready).await?;
        Ok(Self { daemon, http, admin: start.admin, _folder: folder })
    }

    /// Envoy's process id.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pid(&self) -> Result<u32> {
        self.daemon.program_pid()
    }

    /// The admin server's address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A page of the admin server, such as `/stats`.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn page(&self, path: &str) -> Result<String> {
        let response = self.http.get(format!("http://{}{path}", self.admin)).send().await?;
        let status = response.status();
        let body = response.text().await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(RealError::Refused { what: path.to_owned(), status: status.as_u16(), body })
    }

    /// A counter or gauge of `/stats`; 0 where it is not there.
    ///
    /// # Errors
    /// As [`Envoy::page`].
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let page = self.page(&format!("/stats?filter=^{name}$")).await?;
        Ok(page.rsplit(": ").next().and_then(|value| value.trim().parse().ok()).unwrap_or_default())
    }

    /// Everything that it has written to its outputs.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(self) -> Result<()> {
        self.daemon.stop(STOP_LIMIT).await
    }
}
