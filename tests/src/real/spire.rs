//! A real SPIRE: a server that signs for one trust domain, and an agent that hands out what it signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::{free_port, part};

/// It makes a key and a root first.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running server, and an agent that comes and goes. Dropping it ends both.
#[derive(Debug)]
pub struct Spire {
    server: Daemon,
    agent: Option<Daemon>,
    programs: PathBuf,
    /// SPIFFE id of the agent, the parent of all entries.
    parent: String,
    folder: TempDir,
}

impl Spire {
    /// Starts both for the trust domain `cluster.local`, with no entry yet.
    ///
    /// # Errors
    /// When SPIRE is not provisioned, or does not come up.
    pub async fn start() -> Result<Self> {
        let programs = part(Part::Spire)?.join("bin");
        let folder = run_folder("spire")?;
        let (root, port) = (folder.path(), free_port().await?);
        fs::create_dir_all(root.join("agent"))?;
        fs::write(root.join("server.conf"), server_settings(root, port))?;
        fs::write(root.join("agent.conf"), agent_settings(root, port))?;
        let mut command = Command::new(programs.join("spire-server"));
        command.args(["run", "-config"]).arg(root.join("server.conf"));
        let server = Daemon::spawn("spire-server", &command, &root.join("server.log"))?;
        let mut spire = Self { server, agent: None, programs, parent: String::new(), folder };
        let healthy = spire.healthcheck("spire-server", "server.sock");
        spire.server.wait_until(START_LIMIT, async |_: &Daemon| healthy()).await?;
        let token = spire.ask(&["token", "generate"])?;
        let token = token["value"].as_str().unwrap_or_default().to_owned();
        spire.parent = format!("spiffe://cluster.local/spire/agent/join_token/{token}");
        spire.run_agent(&["-joinToken", &token]).await?;
        Ok(spire)
    }

    /// The agent's socket, for workloads.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// Gives the identity to every process of our user, for certificates of this life; gives the entry's id.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn entry(&self, id: &str, seconds: u32) -> Result<String> {
        let selector = format!("unix:uid:{}", rustix::process::getuid().as_raw());
        let life = seconds.to_string();
        let words = ["entry", "create", "-parentID", &self.parent, "-spiffeID", id];
        let more = ["-selector", &selector, "-x509SVIDTTL", &life];
        let made = self.ask(&[&words[..], &more[..]].concat())?;
        let id = made["results"][0]["entry"]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| RealError::Shape(made.to_string()))
    }

    /// Takes an entry away.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn remove(&self, entry: &str) -> Result<()> {
        self.ask(&["entry", "delete", "-entryID", entry]).map(drop)
    }

    /// A step of the root's rotation: `prepare`, `activate`, `taint` or `revoke`; the latter three with
    /// the root's id. Gives what the server answers.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn authority(&self, step: &str, id: Option<&str>) -> Result<Value> {
        let id = id.map(|id| ["-authorityID", id]);
        let words = ["localauthority", "x509", step];
        self.ask(&[&words[..], id.as_ref().map_or(&[][..], |id| &id[..])].concat())
    }

    /// The roots that the server vouches by now, PEM.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn bundle(&self) -> Result<String> {
        self.run("spire-server", "server.sock", &["bundle", "show"])
    }

    /// Has the agent write what we are entitled to into a folder: `svid.0.pem`, `svid.0.key`, `bundle.0.pem`.
    ///
    /// # Errors
    /// When the agent refuses.
    pub fn fetch(&self, folder: &Path) -> Result<()> {
        let folder = folder.to_string_lossy();
        self.run("spire-agent", "agent.sock", &["api", "fetch", "x509", "-write", &folder]).map(drop)
    }

    /// Kills the agent (SIGKILL).
    pub fn kill_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// Starts the agent again, as who it was.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart_agent(&mut self) -> Result<()> {
        self.run_agent(&[]).await
    }

    /// What both have written.
    #[must_use]
    pub fn log(&self) -> String {
        let agent = self.agent.as_ref().map(Daemon::log).unwrap_or_default();
        format!("{}\n{agent}", self.server.log())
    }

    async fn run_agent(&mut self, more: &[&str]) -> Result<()> {
        let root = self.folder.path();
        let mut command = Command::new(self.programs.join("spire-agent"));
        command.args(["run", "-config"]).arg(root.join("agent.conf")).args(more);
        let mut agent = Daemon::spawn("spire-agent", &command, &root.join("agent.log"))?;
        let healthy = self.healthcheck("spire-agent", "agent.sock");
        agent.wait_until(START_LIMIT, async |_: &Daemon| healthy()).await?;
        self.agent = Some(agent);
        Ok(())
    }

    fn healthcheck(&self, program: &str, socket: &str) -> impl Fn() -> bool + use<> {
        let (program, socket) = (self.programs.join(program), self.folder.path().join(socket));
        move || {
            let mut check = Command::new(&program);
            check.arg("healthcheck").arg("-socketPath").arg(&socket);
            check.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        }
    }

    /// A question to the server, answered in JSON.
    fn ask(&self, words: &[&str]) -> Result<Value> {
        let answer = self.run("spire-server", "server.sock", &[words, &["-output", "json"]].concat())?;
        serde_json::from_str(&answer).map_err(|_| RealError::Shape(answer))
    }

    fn run(&self, program: &str, socket: &str, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join(program));
        command.args(words).arg("-socketPath").arg(self.folder.path().join(socket));
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(RealError::Shape(format!("{program} {words:?}: {said}{errors}\n{}", self.log())))
    }
}

fn server_settings(folder: &Path, port: u16) -> String {
    format!(
        r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{0}/server.sock"
  data_dir = "{0}/server"
  trust_domain = "cluster.local"
  ca_key_type = "ec-p256"
  log_level = "INFO"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{0}/entries.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"#,
        folder.display()
    )
}

/// Its key lies on disk, so that it can come back without another token.
fn agent_settings(folder: &Path, port: u16) -> String {
    format!(
        r#"agent {{
  data_dir = "{0}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{0}/agent.sock"
  trust_domain = "cluster.local"
  insecure_bootstrap = true
  log_level = "INFO"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{0}/agent" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#,
        folder.display()
    )
}
