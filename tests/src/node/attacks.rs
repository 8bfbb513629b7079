//! The ways round the proxy, as programs (`tests/node/attacks`), and what the wire says of each.

use std::{path::PathBuf, process::Command, time::Duration};

use demo::pods::{Namespace, Pod};
use serde::Deserialize;

use super::{Program, Result, Sniffer, eventually};
use crate::harness::repository;

/// All attacks run at once, each with a patience of a few seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Frames are on the wire when a program has ended, but not yet read by the sniffer.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// What came of one attack.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// The attack's name.
    pub name: String,
    source_port: u16,
    port: u16,
    /// What it got, where it got something: an answer, or `sent`.
    pub got: Option<String>,
    /// Why not.
    pub error: Option<String>,
    /// Frames of it that were on the wire.
    #[serde(default)]
    pub wire: usize,
    /// Frames of it that the node took up.
    #[serde(default)]
    pub taken: usize,
}

/// Those that reach the node's end of the veth whatever stands in the pod: they are dropped there.
const AT_THE_NODE: [&str; 2] = ["bypass", "xdp"];

impl Attempt {
    /// Whether it got past: on the wire, or, where nothing in the pod can stop it, taken up by the node.
    #[must_use]
    pub fn is_past(&self) -> bool {
        let at_the_node = AT_THE_NODE.iter().any(|word| self.name.contains(word));
        self.taken > 0 || (self.wire > 0 && !at_the_node)
    }

    /// The bytes that its frames hold and no others: source and destination port.
    fn mark(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.source_port.to_be_bytes(), self.port.to_be_bytes());
        [a, b, c, d]
    }
}

/// Whom to attack, and from where.
#[derive(Debug, Clone)]
pub struct Attacks {
    /// Whom.
    pub to: std::net::IpAddr,
    /// On which port, but for names: those on 53.
    pub port: u16,
    /// The attacker's own address.
    pub own: std::net::IpAddr,
    /// The node's address as the attacker knows it.
    pub gateway: std::net::IpAddr,
    /// Somebody else's address, to speak in his name.
    pub other: std::net::IpAddr,
    /// The n-th attack's source port is this plus n. Below the ephemeral ports.
    pub first_port: u16,
}

impl Attacks {
    /// All of them, from `pod` to `to`.
    ///
    /// # Errors
    /// When the pod has no address of `to`'s family.
    pub fn from_pod(pod: &Pod, to: std::net::IpAddr, port: u16, other: std::net::IpAddr) -> Result<Self> {
        let missing = || super::Error::Late("the pod has no address of that family".to_owned());
        let (own, gateway) = if to.is_ipv6() {
            (pod.v6().map(Into::into), pod.gateway_v6().map(Into::into))
        } else {
            (pod.v4().map(Into::into), pod.gateway_v4().map(Into::into))
        };
        let (own, gateway) = (own.ok_or_else(missing)?, gateway.ok_or_else(missing)?);
        Ok(Self { to, port, own, gateway, other, first_port: 5000 })
    }

    /// The names of all attacks by this family.
    ///
    /// # Errors
    /// When Python is not there.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut command = Command::new(python()?);
        command.args(arguments()).args(["list", if self.to.is_ipv6() { "6" } else { "4" }]);
        let said = Program::run("attacks list", command, LIMIT)?;
        Ok(said.trim().split(',').map(str::to_owned).collect())
    }

    /// Runs the named attacks at once and looks at every interface of `namespace`, the node's; `command`
    /// makes the Python that runs them, wherever that is.
    ///
    /// # Errors
    /// When the program does not end.
    pub fn run(
        &self,
        names: &[String],
        command: impl FnOnce(&PathBuf) -> Result<Command>,
        namespace: &Namespace,
    ) -> Result<Vec<Attempt>> {
        let (wire, taken) = (Sniffer::all(namespace)?, Sniffer::taken(namespace)?);
        let mut command = command(&python()?)?;
        command.args(arguments()).arg("run").arg(names.join(","));
        command.args([self.to.to_string(), self.port.to_string(), self.first_port.to_string()]);
        command.args([self.own, self.gateway, self.other].map(|address| address.to_string())).arg("eth0");
        let said = Program::run("attacks", command, LIMIT)?;
        let mut attempts: Vec<Attempt> =
            said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if attempts.len() != names.len() {
            return Err(super::Error::Program {
                name: "attacks".to_owned(),
                what: format!("{} of {} attacks came to an end", attempts.len(), names.len()),
                said,
            });
        }
        settle(&wire)?;
        settle(&taken)?;
        for attempt in &mut attempts {
            attempt.wire = wire.holding(&attempt.mark());
            attempt.taken = taken.holding(&attempt.mark());
        }
        Ok(attempts)
    }
}

/// Waits until the sniffer has read what was on the wire by now: two looks alike.
fn settle(sniffer: &Sniffer) -> Result<()> {
    let mut before = None;
    eventually("the sniffer is done reading", SEEN_WITHIN * 4, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = sniffer.frames().len();
        let same = before.replace(now) == Some(now);
        if same { Ok(()) } else { Err("frames still come".to_owned()) }
    })
}

fn arguments() -> [PathBuf; 3] {
    // No bytecode into the repository, no packages of the machine.
    ["-B".into(), "-S".into(), repository().join("tests/node/attacks")]
}

/// The interpreter itself, not the shim that some version managers put in its place.
///
/// # Errors
/// When there is none.
pub fn python() -> Result<PathBuf> {
    static FOUND: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let mut command = Command::new("python3");
    command.args(["-c", "import sys; print(sys.executable)"]);
    let said = Program::run("python3", command, LIMIT)?;
    Ok(FOUND.get_or_init(|| said.trim().into()).clone())
}
