//! HAPI's two FHIR servers (R4) on loopback, HTTP/1.1 and h2c on one port.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::{client, loopback, part};

const MAIN: &str = "dev.fhirward.tests.Main";
/// What the server prints before its port once it serves.
const LISTENING: &str = "listening on ";
/// The JPA server takes 35 s where nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(240);

/// A running HAPI server. Dropping it ends it, with all that it stored.
#[derive(Debug)]
pub struct Hapi {
    daemon: Daemon,
    address: SocketAddr,
    _folder: TempDir,
}

impl Hapi {
    /// HAPI's RestfulServer over a map in memory: up in a few seconds, answers in about a millisecond.
    ///
    /// # Errors
    /// When it is not provisioned, or does not come up.
    pub async fn light() -> Result<Self> {
        Self::start(Part::Hapi, "-Xmx256m").await
    }

    /// The full HAPI FHIR JPA server on H2: search, history, transactions, integrity, `$everything`.
    ///
    /// # Errors
    /// When it is not provisioned, or does not come up.
    pub async fn jpa() -> Result<Self> {
        Self::start(Part::HapiJpa, "-Xmx1g").await
    }

    /// Where it listens; the FHIR base is below `/fhir`.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The FHIR base: `http://127.0.0.1:PORT/fhir`.
    pub fn base_url(&self) -> String {
        format!("http://{}/fhir", self.address)
    }

    /// Freezes the server: connections are accepted by the kernel and nobody answers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.daemon.pause()
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.daemon.resume()
    }

    /// Kills the server at once (SIGKILL).
    pub fn kill(self) {
        self.daemon.kill();
    }

    async fn start(which: Part, heap: &str) -> Result<Self> {
        let server = part(which)?;
        let folder = run_folder(&which.to_string())?;
        let mut command = Command::new("java");
        command.current_dir(folder.path()).env("HOME", folder.path());
        command.arg(heap).arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        let path = format!("{0}/server.jar:{0}/lib/*", server.display());
        command.args(["-cp", &path, MAIN, "0"]);
        let mut daemon = Daemon::spawn(&which.to_string(), &command, &folder.path().join("log"))?;
        daemon.wait_until(START_LIMIT, async |daemon| port(&daemon.log()).is_some()).await?;
        let port =
            port(&daemon.log()).ok_or_else(|| RealError::Shape("HAPI's log has lost its port".to_owned()))?;
        let hapi = Self { daemon, address: loopback(port), _folder: folder };
        hapi.first_answer().await?;
        Ok(hapi)
    }

    /// The first answer builds the capability statement; tests begin after it.
    async fn first_answer(&self) -> Result<()> {
        let url = format!("{}/metadata", self.base_url());
        let response = client()?.get(url).send().await?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status().as_u16();
        Err(RealError::Refused { what: "HAPI's metadata".to_owned(), status, body: response.text().await? })
    }
}

/// The port in a whole line of the log.
fn port(log: &str) -> Option<u16> {
    let line = log.split_inclusive('\n').find(|line| line.starts_with(LISTENING) && line.ends_with('\n'))?;
    line.trim_start_matches(LISTENING).trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn the_port_is_read_from_a_whole_line_only() {
        assert_eq!(port("WARN x\nlistening on 41"), None);
        assert_eq!(port("WARN x\nlistening on 4123\n"), Some(4123));
    }
}
