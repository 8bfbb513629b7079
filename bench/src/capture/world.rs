//! The pods, and the processes in them and beside them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use demo::pods::{self, Node, Place, Pod, Stack};

use super::ways::{Led, Way};
use crate::meshes::{self, MAIN, NAMESPACE};
use crate::peers::process::Process;
use crate::tokens::{Algorithm, Tokens};

/// The port of every server.
const PORT: u16 = 8080;
/// The port of the explicit proxy, on the node.
const EXPLICIT_PORT: u16 = 8000;
/// The label of servers that no policy selects.
const TCP: &str = "tcp-server";
/// How long capture may take to be there.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const ADMIN: &str = "127.0.0.1:15000";

/// Why the world cannot be had, or a figure in it.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Pods.
    #[error(transparent)]
    Pods(#[from] pods::Error),
    /// Files, processes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is seen is not what was meant.
    #[error("{0}")]
    Wrong(String),
}

/// Where the programs are, and which cores they get.
#[derive(Debug, Clone)]
pub struct Files {
    /// The folder with `fhirward`, `capture-load` and `redirect-proxy`.
    pub ours: PathBuf,
    /// Clients and servers.
    pub load_core: usize,
    /// Proxies and agent.
    pub peer_core: usize,
}

/// A pod's place in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Calls.
    Client,
    /// Is called; HTTP, under the policy where there is a mesh.
    Http,
    /// Is called; declared as TCP, without policy.
    Tcp,
}

impl Role {
    const ALL: [Self; 3] = [Self::Client, Self::Http, Self::Tcp];

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// Its `app` label.
    const fn app(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Http => MAIN,
            Self::Tcp => TCP,
        }
    }
}

/// Everything that runs. Dropped in this order: processes first, then where they stand.
pub struct World {
    processes: BTreeMap<&'static str, Process>,
    servers: BTreeMap<(Led, Role), Process>,
    pods: BTreeMap<(Led, Role), Pod>,
    node: Node,
    files: Files,
    token: String,
}

impl World {
    /// Makes pods and starts everything; when it returns, every way is as it should be: the policy
    /// refuses who has no token.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn open(files: &Files, tokens: &Tokens) -> Result<Self, WorldError> {
        let node = Node::new()?;
        let mut pods = BTreeMap::new();
        for led in Led::ALL {
            for role in Role::ALL {
                pods.insert((led, role), node.pod(&name(led, role), Stack::V4)?);
            }
        }
        let token =
            tokens.of(Algorithm::Rs256).first().map(|token| String::from_utf8_lossy(token).into_owned());
        let mut world = Self {
            processes: BTreeMap::new(),
            servers: BTreeMap::new(),
            pods,
            node,
            files: files.clone(),
            token: token.ok_or_else(|| WorldError::Wrong("there is no token".to_owned()))?,
        };
        world.write_settings(tokens)?;
        world.start()?;
        world.settle()?;
        Ok(world)
    }

    fn start(&mut self) -> Result<(), WorldError> {
        for led in Led::ALL {
            for role in [Role::Http, Role::Tcp] {
                let address = self.server(led, role)?.to_string();
                let pod = self.pod(led, role)?;
                let server = self.spawn(
                    pod.command("taskset"),
                    self.files.load_core,
                    &["capture-load", "serve", &address],
                    pod.name(),
                )?;
                self.servers.insert((led, role), server);
            }
        }
        self.redirect()?;
        let config = self.file("fhirward.yaml");
        let settings = ["--config", &config];
        let agent = self.spawn(
            self.node.command(Place::Agent, "taskset"),
            self.files.peer_core,
            &[&["fhirward", "agent"], &settings[..]].concat(),
            "agent",
        )?;
        self.processes.insert("agent", agent);
        let node = self.spawn(
            self.node.command(Place::Proxy, "taskset"),
            self.files.peer_core,
            &[&["fhirward", "node"], &settings[..]].concat(),
            "node",
        )?;
        self.processes.insert("node", node);
        let config = self.file("redirect.yaml");
        let nat = self.pods.iter().filter(|((led, _), _)| *led == Led::Redirect);
        let pods: Vec<String> = nat
            .filter_map(|(_, pod)| {
                let netns = pod.namespace().path().display();
                Some(format!("{NAMESPACE}/{}={}={netns}", pod.name(), pod.v4()?))
            })
            .collect();
        let mut words = vec!["redirect-proxy", "--config", &config];
        words.extend(pods.iter().map(String::as_str));
        let proxy =
            self.spawn(self.node.command(Place::Other, "taskset"), self.files.peer_core, &words, "redirect")?;
        self.processes.insert("redirect", proxy);
        Ok(())
    }

    /// What a mesh without eBPF does in each pod: connections outwards are turned to the proxy, but for
    /// the proxy's own, which carry a mark.
    fn redirect(&self) -> Result<(), WorldError> {
        let client = self.pod(Led::Redirect, Role::Client)?;
        let (mark, port) = (super::redirect::MARK.to_string(), super::redirect::PORT.to_string());
        let words = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-m", "mark", "!", "--mark", &mark];
        let output =
            client.command("iptables").args(words).args(["-j", "REDIRECT", "--to-ports", &port]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(WorldError::Wrong(format!("iptables: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// Runs `words`, the first of them a program of ours, on a core.
    fn spawn(
        &self,
        mut command: Command,
        core: usize,
        words: &[&str],
        name: &str,
    ) -> Result<Process, WorldError> {
        let log = self.node.folder().join(format!("{name}.log"));
        let file = File::create(&log)?;
        let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
        command.args(["-c", &core.to_string()]).arg(self.files.ours.join(program)).args(arguments);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Process::adopt(command.spawn()?, log))
    }

    /// Waits until each way answers, and each way with a policy refuses who has no token.
    fn settle(&mut self) -> Result<(), WorldError> {
        for way in Way::ALL {
            let began = Instant::now();
            loop {
                let seen = [self.ask(way, true)?, self.ask(way, false)?];
                if seen == [200, if way.has_policy() { 403 } else { 200 }] {
                    break;
                }
                self.all_run()?;
                if began.elapsed() > START_LIMIT {
                    let logs: Vec<String> = self.processes.values().map(Process::tail).collect();
                    let logs = logs.join("\n");
                    return Err(WorldError::Wrong(format!("{}: {seen:?}\n{logs}", way.name())));
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// An error where a process has ended.
    fn all_run(&mut self) -> Result<(), WorldError> {
        for process in self.processes.values_mut().chain(self.servers.values_mut()) {
            if let Some(told) = process.ended() {
                return Err(WorldError::Wrong(told));
            }
        }
        Ok(())
    }

    fn ask(&self, way: Way, with_token: bool) -> Result<u16, WorldError> {
        let url = format!("http://{}/fhir/Patient/p1", self.target(way)?);
        let mut curl = self.pod(way.led(), Role::Client)?.command("curl");
        curl.args([
            "-q",
            "-s",
            "--noproxy",
            "*",
            "--max-time",
            "5",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &url,
        ]);
        if with_token {
            curl.args(["-H", &format!("authorization: Bearer {}", self.token)]);
        }
        let output = curl.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0))
    }

    /// The address that the client of a way calls.
    ///
    /// # Errors
    /// Never where the world was opened.
    pub fn target(&self, way: Way) -> Result<SocketAddr, WorldError> {
        match way {
            Way::Direct => self.server(Led::Not, Role::Tcp),
            Way::Explicit => {
                let gateway = self.pod(Led::Not, Role::Client)?.gateway_v4();
                let gateway = gateway.ok_or_else(|| WorldError::Wrong("no gateway".to_owned()))?;
                Ok((gateway, EXPLICIT_PORT).into())
            }
            Way::Tcp(led) => self.server(led, Role::Tcp),
            Way::Policy(led) => self.server(led, Role::Http),
        }
    }

    /// `capture-load` in the pod of the way's client.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn load(&self, way: Way, arguments: &[String]) -> Result<Child, WorldError> {
        let mut command = self.pod(way.led(), Role::Client)?.command("taskset");
        command.args(["-c", &self.files.load_core.to_string()]).arg(self.files.ours.join("capture-load"));
        command.arg("load").args(["--target", &self.target(way)?.to_string()]).args(arguments);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?)
    }

    /// CPU time so far of what stands between client and server: the proxy, and the agent where it
    /// has a part.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn between(&self, way: Way) -> Result<Duration, WorldError> {
        let names: &[&str] = match (way, way.led()) {
            (Way::Direct, _) => &[],
            (_, Led::Redirect) => &["redirect"],
            _ => &["node", "agent"],
        };
        names
            .iter()
            .filter_map(|name| self.processes.get(name))
            .try_fold(Duration::ZERO, |sum, process| Ok(sum + process.cpu()?))
    }

    /// CPU time so far of the way's server.
    ///
    /// # Errors
    /// When it is gone.
    pub fn server_cpu(&self, way: Way) -> Result<Duration, WorldError> {
        let role = if way.has_policy() { Role::Http } else { Role::Tcp };
        let server = self.servers.get(&(way.led(), role));
        Ok(server.ok_or_else(|| WorldError::Wrong("no server".to_owned()))?.cpu()?)
    }

    /// A file of the world, for requests.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.node.folder().join(name).display().to_string()
    }

    /// A whole request for a way, with a token where it has a policy.
    ///
    /// # Errors
    /// As [`World::target`].
    pub fn request(&self, way: Way, path: &str) -> Result<String, WorldError> {
        let bearer = if way.has_policy() {
            format!("authorization: Bearer {}\r\n", self.token)
        } else {
            String::new()
        };
        let host = self.target(way)?;
        Ok(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/fhir+json\r\n{bearer}\r\n"))
    }

    /// The folder of the pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.node.pins()
    }

    fn pod(&self, led: Led, role: Role) -> Result<&Pod, WorldError> {
        let pod = self.pods.get(&(led, role));
        pod.ok_or_else(|| WorldError::Wrong(format!("no pod {}", name(led, role))))
    }

    fn server(&self, led: Led, role: Role) -> Result<SocketAddr, WorldError> {
        let ip = self.pod(led, role)?.v4();
        let ip = ip.ok_or_else(|| WorldError::Wrong("a pod without IPv4".to_owned()))?;
        Ok((IpAddr::V4(ip), PORT).into())
    }

    /// The manifests, and the settings of both proxies.
    fn write_settings(&self, tokens: &Tokens) -> Result<(), WorldError> {
        let folder = self.node.folder();
        let manifests = folder.join("manifests");
        fs::create_dir(&manifests)?;
        let mesh = meshes::manifests(&tokens.provider.issuer(), &tokens.provider.jwks, 1, 0);
        // The port's name declares TCP, so that nothing is looked into.
        let service = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {TCP}, namespace: {NAMESPACE}}}\n\
             spec: {{selector: {{app: {TCP}}}, ports: [{{name: tcp-fhir, port: {PORT}, targetPort: {PORT}}}]}}\n"
        );
        fs::write(manifests.join("mesh.yaml"), mesh + &service)?;
        fs::write(folder.join("fhirward.yaml"), self.settings()?)?;
        fs::write(folder.join("redirect.yaml"), self.redirect_settings())?;
        Ok(())
    }

    fn settings(&self) -> Result<String, WorldError> {
        let captured = self.pods.iter().filter(|((led, _), _)| matches!(led, Led::Bpf | Led::Accelerated));
        let captured: String = captured
            .map(|((led, _), pod)| {
                format!(
                    "  - {{name: {NAMESPACE}/{}, netns: \"{}\", cgroup: \"{}\", socketAcceleration: {}}}\n",
                    pod.name(),
                    pod.namespace().path().display(),
                    pod.cgroup().display(),
                    *led == Led::Accelerated,
                )
            })
            .collect();
        let (explicit, upstream) = (self.target(Way::Explicit)?, self.server(Led::Not, Role::Http)?);
        Ok(format!(
            "listeners:
- {{name: explicit, address: \"{explicit}\", to: {NAMESPACE}/plain-http, port: {PORT}, upstream: \"{upstream}\"}}
capture:
  socket: \"{}\"
  pinPath: \"{}\"
  cgroupRoot: \"{}\"
  pods:
{captured}{}admin: {{address: \"{ADMIN}\", threads: 1}}
",
            self.file("agent.sock"),
            self.node.pins().display(),
            self.node.cgroup().display(),
            self.mesh(|led| matches!(led, Led::Bpf | Led::Accelerated)),
        ))
    }

    /// The proxy behind iptables reads settings too; its pods are on the command line.
    fn redirect_settings(&self) -> String {
        format!(
            "listeners: [{{name: none, address: \"127.0.0.1:0\", to: {NAMESPACE}/nat-http, port: {PORT}}}]\n\
             {}admin: {{address: \"127.0.0.1:0\", threads: 1}}\n",
            self.mesh(|led| led == Led::Redirect)
        )
    }

    fn mesh(&self, enrolled: impl Fn(Led) -> bool) -> String {
        let workload = |(led, role): &(Led, Role), pod: &Pod| {
            Some(format!(
                "  - {{name: {NAMESPACE}/{}, ip: \"{}\", labels: {{app: {}}}, enrolled: {}}}\n",
                pod.name(),
                pod.v4()?,
                role.app(),
                enrolled(*led),
            ))
        };
        let workloads: String = self.pods.iter().filter_map(|(key, pod)| workload(key, pod)).collect();
        format!(
            "mesh:\n  manifests: [manifests]\n  workloads:\n{workloads}observe: {{accessLog: {{enabled: false}}}}\n"
        )
    }
}

fn name(led: Led, role: Role) -> String {
    format!("{}-{}", led.name(), role.name())
}
