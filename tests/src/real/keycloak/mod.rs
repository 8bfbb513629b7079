//! A real Keycloak with the realms of `tests/real/keycloak`, on loopback, in a folder of its own.

mod keys;
mod realm;
mod tokens;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::{client, free_port, loopback, part};

pub use keys::Rotation;
pub use tokens::{BriefToken, TokenSet};

/// The first start makes a database and imports the realms: 20 s where nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(180);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const PORT_LIMIT: Duration = Duration::from_secs(10);
const ADMIN: &str = "admin";
/// The realm by which readiness is told.
const REALM: &str = "IDEA4RC";
/// Kept from the environment: Keycloak must see no settings but ours.
const SETTINGS_PREFIX: &str = "KC_";

/// How a Keycloak is started.
#[derive(Debug, Clone, Default)]
pub struct KeycloakOptions {
    /// The URL that stands in `iss`, such as `https://keycloak.example`, while Keycloak listens on
    /// loopback; then `jwks_uri` of the discovery document is of the address that asked for it.
    /// Without it, `iss` begins with [`Keycloak::base_url`].
    pub hostname: Option<String>,
    /// The port to listen on; a free one without it.
    pub port: Option<u16>,
}

/// A running (or stopped, or killed) Keycloak.
#[derive(Debug)]
pub struct Keycloak {
    daemon: Option<Daemon>,
    folder: TempDir,
    http: reqwest::Client,
    base_url: String,
    hostname: Option<String>,
    port: u16,
    management_port: u16,
    admin_password: String,
    service_secret: String,
}

impl Keycloak {
    /// Starts a Keycloak with its own database and waits until it serves its realms.
    ///
    /// # Errors
    /// When Keycloak is not provisioned, or does not come up.
    pub async fn start(options: KeycloakOptions) -> Result<Self> {
        let distribution = part(Part::Keycloak)?;
        let folder = run_folder("keycloak")?;
        let service_secret = realm::secret()?;
        prepare(&distribution, folder.path(), &service_secret)?;
        let port = match options.port {
            Some(port) => port,
            None => free_port().await?,
        };
        let mut keycloak = Self {
            daemon: None,
            folder,
            http: client()?,
            base_url: format!("http://{}", loopback(port)),
            hostname: options.hostname,
            port,
            management_port: free_port().await?,
            admin_password: realm::secret()?,
            service_secret,
        };
        keycloak.start_again().await?;
        Ok(keycloak)
    }

    /// Starts a stopped or killed Keycloak on the same port with the same data; does nothing to a
    /// running one.
    ///
    /// # Errors
    /// When the port is taken, or Keycloak does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        self.wait_for_port().await?;
        let mut daemon = Daemon::spawn("keycloak", &self.command(), &self.folder.path().join("log"))?;
        let (http, url) = (self.http.clone(), self.realm_url(REALM));
        let ready = async |_: &Daemon| {
            http.get(&url).send().await.is_ok_and(|response| response.status().is_success())
        };
        daemon.wait_until(START_LIMIT, ready).await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Stops Keycloak in an orderly way (SIGTERM) and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        match self.daemon.take() {
            Some(daemon) => daemon.stop(STOP_LIMIT).await,
            None => Ok(()),
        }
    }

    /// Kills Keycloak at once (SIGKILL to its Java). Nothing answers from then on; the kernel may still
    /// accept connections for some moments, until it has taken the process apart.
    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Freezes Keycloak: connections are accepted by the kernel and nobody answers.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self) -> Result<()> {
        self.daemon.as_ref().map_or(Ok(()), Daemon::pause)
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it is gone.
    pub fn resume(&self) -> Result<()> {
        self.daemon.as_ref().map_or(Ok(()), Daemon::resume)
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The `iss` of a realm's tokens.
    pub fn issuer(&self, realm: &str) -> String {
        let host = self.hostname.as_deref().unwrap_or(&self.base_url);
        format!("{host}/realms/{realm}")
    }

    /// A realm's keys, at the address it listens on.
    pub fn jwks_uri(&self, realm: &str) -> String {
        format!("{}/protocol/openid-connect/certs", self.realm_url(realm))
    }

    /// A realm's token endpoint, at the address it listens on.
    pub fn token_url(&self, realm: &str) -> String {
        format!("{}/protocol/openid-connect/token", self.realm_url(realm))
    }

    /// The secret of the client `idea-svc`, made at this start.
    pub fn service_secret(&self) -> &str {
        &self.service_secret
    }

    /// Everything Keycloak has written since its last start.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    fn realm_url(&self, realm: &str) -> String {
        format!("{}/realms/{realm}", self.base_url)
    }

    fn command(&self) -> Command {
        let home = self.folder.path();
        let mut command = Command::new(home.join("bin/kc.sh"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(SETTINGS_PREFIX) {
                command.env_remove(name);
            }
        }
        command.current_dir(home).env("HOME", home);
        command.env("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m");
        command.env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN);
        command.env("KC_BOOTSTRAP_ADMIN_PASSWORD", &self.admin_password);
        command.args(["start", "--optimized", "--import-realm", "--cache=local"]);
        command.args(["--http-enabled=true", "--http-host=127.0.0.1"]);
        // H2 writes half a second late by default: a kill would take back what was just done.
        command.arg("--db-url-properties=;WRITE_DELAY=0");
        command.args(["--http-management-host=127.0.0.1", "--log-level=info"]);
        command.arg(format!("--http-port={}", self.port));
        command.arg(format!("--http-management-port={}", self.management_port));
        match &self.hostname {
            Some(url) => command.arg(format!("--hostname={url}")).arg("--hostname-backchannel-dynamic=true"),
            None => command.arg("--hostname-strict=false"),
        };
        command
    }

    /// A killed Keycloak's port is free as soon as the kernel has taken the process apart.
    async fn wait_for_port(&self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(loopback(self.port)).await.is_ok() {
            if started.elapsed() > PORT_LIMIT {
                return Err(RealError::Shape(format!("port {} is in use by somebody else", self.port)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A home for one Keycloak: the start script and settings copied, the 170 MB of libraries linked to,
/// data and realms its own.
fn prepare(distribution: &Path, home: &Path, service_secret: &str) -> Result<()> {
    for folder in ["lib", "providers", "themes"] {
        symlink(distribution.join(folder), home.join(folder))?;
    }
    fs::create_dir_all(home.join("bin"))?;
    // Copied, as the script takes the folder it really lies in for its home.
    fs::copy(distribution.join("bin/kc.sh"), home.join("bin/kc.sh"))?;
    fs::create_dir_all(home.join("conf"))?;
    copy_files(&distribution.join("conf"), &home.join("conf"))?;
    let import = home.join("data/import");
    fs::create_dir_all(&import)?;
    realm::write_all(&Part::Keycloak.source(), &import, service_secret)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The JSON files of a folder, in the order of their names.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| RealError::Read { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(read)?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    Ok(files)
}
