//! A node with pods, the agent and the proxy.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use demo::pods::{Node, Place, Pod, Stack};

use super::{
    Actor, Error, Program, Result,
    actor::{container, kubernetes, uid},
    eventually, in_pod,
};
use crate::harness;

/// How long anything of the node may take on a slow machine.
pub const SOON: Duration = Duration::from_secs(30);
/// Where every pod's server answers in lines.
pub const LINES: u16 = 7000;
/// Where it answers to the pod itself alone.
pub const INNER: u16 = 7001;
/// Where it answers as on [`LINES`], and whose Service port says HTTP.
pub const HTTP: u16 = 7003;
/// Of what agent and proxy wrote, for the reader of a failure: the last lines, and of each the start.
const TOLD_LINES: usize = 30;
const TOLD_WIDTH: usize = 600;
/// The most pods that are made on one node of several.
const PODS_MAX: u8 = 100;
/// The namespace of all pods.
pub(super) const NAMESPACE: &str = "pods";
/// The admin server's port, in the node's own network namespace.
const ADMIN: u16 = 15_000;

/// What of the settings a test wants otherwise.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines below `capture:`.
    pub capture: String,
    /// Lines at the top.
    pub more: String,
    /// Lines below `mesh:`.
    pub mesh: String,
    /// Lines below `identity:`.
    pub identity: String,
    /// The proxy writes its access log, to its standard output.
    pub log: bool,
    /// Pods are found by their cgroups, not listed.
    pub discover: bool,
    /// The first node with its manifests, where this is another one: both read the same.
    pub beside: Option<Beside>,
}

/// What a further node has from the first.
#[derive(Debug, Clone)]
pub struct Beside {
    /// From 1 on.
    pub number: u8,
    /// The folder of everybody's manifests.
    pub manifests: PathBuf,
}

/// A node with pods, the agent and the proxy. What is in it ends with it.
pub struct Stage {
    // Dropped in this order: the proxy and the agent before what they stand on.
    /// The proxy.
    pub proxy: Option<Program>,
    /// The agent.
    pub agent: Option<Program>,
    /// The pods, by the order in which they were made.
    pub actors: Vec<Actor>,
    /// Answers in lines to pods at the node's own addresses; captured by nobody.
    _server: Program,
    /// The node.
    pub node: Node,
    options: Options,
    manifests: PathBuf,
    policies: String,
    /// Pods made so far, those that are gone among them.
    made: u8,
}

impl Stage {
    /// A node without pods; nothing runs yet.
    ///
    /// # Errors
    /// Without root.
    pub fn new(options: Options) -> Result<Self> {
        let number = options.beside.as_ref().map_or(0, |beside| beside.number);
        let node = Node::numbered(number)?;
        let manifests = match &options.beside {
            Some(first) => first.manifests.clone(),
            None => node.folder().join("manifests"),
        };
        fs::create_dir_all(&manifests)?;
        let mut command = node.command(Place::Other, in_pod()?);
        command.args(["serve", "node", &LINES.to_string()]);
        let server = Program::start("server of the node", command)?;
        server.line("ready", SOON)?;
        Ok(Self {
            proxy: None,
            agent: None,
            actors: Vec::new(),
            _server: server,
            node,
            options,
            manifests,
            policies: String::new(),
            // Services' addresses are everybody's.
            made: number.saturating_mul(PODS_MAX),
        })
    }

    /// Adds a pod with a server in it.
    ///
    /// # Errors
    /// When it cannot be made or its server does not start.
    pub fn pod(&mut self, name: &str, stack: Stack, enrolled: bool) -> Result<&mut Actor> {
        self.made = self.made.wrapping_add(1);
        let number = self.made;
        let pod = match self.options.discover {
            false => self.node.pod(name, stack)?,
            true => self.node.pod_in(name, stack, &kubernetes(number, &uid(name)))?,
        };
        let service = Ipv4Addr::new(10, 96, 0, number);
        // A container has its cgroup below the pod's.
        let mut command = pod.command_below(&container(number), in_pod()?)?;
        command.args(["serve", name, &LINES.to_string(), &INNER.to_string()]);
        let server = Program::start(&format!("server of {name}"), command)?;
        server.line("ready", SOON)?;
        self.actors.push(Actor {
            pod,
            enrolled,
            probes: String::new(),
            service,
            server: Some(server),
            namespace: NAMESPACE.to_owned(),
            told: true,
        });
        let last = self.actors.len() - 1;
        self.actors.get_mut(last).ok_or_else(|| Error::Late("no pod".to_owned()))
    }

    /// The pod of that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[allow(clippy::panic)]
    pub fn actor(&self, name: &str) -> &Actor {
        let found = self.actors.iter().find(|actor| actor.pod.name() == name);
        found.unwrap_or_else(|| panic!("a pod named {name}"))
    }

    /// Sets or removes a pod's label.
    ///
    /// # Errors
    /// When the manifests cannot be written.
    pub fn label(&mut self, name: &str, enrolled: bool) -> Result<()> {
        for actor in self.actors.iter_mut().filter(|actor| actor.pod.name() == name) {
            actor.enrolled = enrolled;
        }
        self.write_manifests()
    }

    /// Puts policies beside the pods' manifests.
    ///
    /// # Errors
    /// When the manifests cannot be written.
    pub fn policies(&mut self, policies: &str) -> Result<()> {
        policies.clone_into(&mut self.policies);
        self.write_manifests()
    }

    /// Writes the settings and starts agent and proxy; captured pods are captured when this returns.
    ///
    /// # Errors
    /// When one does not start or a pod is not captured in time.
    pub fn start(&mut self) -> Result<()> {
        self.start_uncaptured()?;
        self.until_captured()
    }

    /// As [`Stage::start`], without the wait: where policies refuse what tells whether pods are.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_uncaptured(&mut self) -> Result<()> {
        self.write_manifests()?;
        fs::write(self.settings_file(), self.settings()?)?;
        self.start_agent()?;
        self.start_proxy()?;
        Ok(())
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(self.process(Place::Agent, "agent")?);
        Ok(())
    }

    /// Starts the proxy, whether one runs already or not; the one before is given back.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start_proxy(&mut self) -> Result<Option<Program>> {
        let proxy = self.process(Place::Proxy, "node")?;
        Ok(self.proxy.replace(proxy))
    }

    fn process(&self, place: Place, verb: &str) -> Result<Program> {
        let binary = harness::binary().map_err(|error| Error::Late(error.to_string()))?;
        let mut command = self.node.command(place, binary);
        command.arg(verb).arg("--config").arg(self.settings_file());
        Program::start(verb, command)
    }

    /// Waits until every pod that is to be captured is, by each of its addresses, outwards to the node
    /// and inwards from it.
    ///
    /// # Errors
    /// When one is not in time; with what agent and proxy said.
    pub fn until_captured(&self) -> Result<()> {
        for actor in self.actors.iter().filter(|actor| actor.enrolled) {
            for address in actor.pod.addresses() {
                if let Some(gateway) = actor.gateway(address) {
                    self.until_way(actor, gateway, "through")?;
                }
                self.until(&format!("the node to {address}"), "through", || {
                    asked(self.node.command(Place::Other, in_pod()?), (address, LINES).into())
                })?;
            }
        }
        Ok(())
    }

    /// What of the settings a test wants otherwise; written when agent and proxy are started.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Waits until the proxy says that it is ready, serves every pod that is to be captured and, where there
    /// are certificates, has each one's: for policies under which no question from the node is answered.
    ///
    /// # Errors
    /// When it is late; with what agent and proxy said.
    pub fn until_held(&self) -> Result<()> {
        eventually("all pods are served, and the proxy is ready", SOON, || {
            let (status, body) = self.page("/readyz").map_err(|error| error.to_string())?;
            let missing = self.missing().map_err(|error| error.to_string())?;
            if status == 200 && missing.is_empty() {
                return Ok(());
            }
            Err(format!("{missing}: {status} {body}"))
        })
        .map_err(|error| Error::Late(format!("{error}\n{}", self.told())))
    }

    /// What is not there yet of those that are to be captured.
    fn missing(&self) -> Result<String> {
        let enrolled: Vec<&Actor> = self.actors.iter().filter(|actor| actor.enrolled).collect();
        let all = f64::from(u16::try_from(enrolled.len()).unwrap_or(u16::MAX));
        let serving = self.metric("fhirward_capture_pods", &["serving"])?;
        if serving < all {
            return Ok(format!("{serving} of {all} are served"));
        }
        for actor in enrolled.iter().filter(|_| self.options.identity.contains("certificates")) {
            let identity = format!("/ns/{}/sa/{}\"", actor.namespace, actor.pod.name());
            let had = self.metric("fhirward_workload_certificate_renewals_total", &[&identity])?;
            if had < 1.0 {
                return Ok(format!("{identity} has no certificate"));
            }
        }
        Ok(String::new())
    }

    /// Waits until a connection of the pod goes the way `through` or `past`.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn until_way(&self, actor: &Actor, to: IpAddr, way: &str) -> Result<Duration> {
        let what = format!("{} to {to}", actor.pod.name());
        self.until(&what, way, || asked(actor.pod.command(in_pod()?), (to, LINES).into()))
    }

    fn until(&self, what: &str, way: &str, ask: impl Fn() -> Result<String>) -> Result<Duration> {
        let began = Instant::now();
        eventually(&format!("{what} goes {way}"), SOON, || {
            let said = ask().unwrap_or_else(|error| format!("error {error}"));
            if said.starts_with(way) { Ok(()) } else { Err(said) }
        })
        .map_err(|error| Error::Late(format!("{error}\n{}", self.told())))?;
        Ok(began.elapsed())
    }

    /// One exchange from a pod: `through NAME PEER LOCAL`, `past …` or `error …`.
    #[must_use]
    pub fn ask(&self, pod: &Pod, to: SocketAddr) -> String {
        let said = in_pod().and_then(|program| asked(pod.command(program), to));
        said.unwrap_or_else(|error| format!("error {error}"))
    }

    /// Starts `in-pod` with `words` in a pod.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn in_pod(&self, name: &str, words: &[&str]) -> Result<Program> {
        let mut command = self.actor(name).pod.command(in_pod()?);
        command.args(words);
        Program::start(&format!("in-pod {}", words.join(" ")), command)
    }

    /// A page of the proxy's admin server: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        self.get((Ipv4Addr::LOCALHOST, ADMIN).into(), path)
    }

    /// `GET path` from the node, in its network namespace.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, to: SocketAddr, path: &str) -> Result<(u16, String)> {
        let text = self.node.namespace().run(|| {
            let mut stream = TcpStream::connect_timeout(&to, SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&text).into_owned())
        })??;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| Error::Late(format!("{to}{path} answered {text:?}")))?;
        Ok((status, body.to_owned()))
    }

    /// The sum over a metric's series whose text holds every one of `labels`.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (_, page) = self.page("/metrics")?;
        let fits = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        Ok(page.lines().filter(fits).filter_map(value).sum())
    }

    /// What agent and proxy have written, for the reader of a failure.
    #[must_use]
    pub fn told(&self) -> String {
        let tail = |program: &Option<Program>| {
            let said = program.as_ref().map(Program::said).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.get(lines.len().saturating_sub(TOLD_LINES)..).unwrap_or_default();
            last.iter().map(|line| format!("{line:.TOLD_WIDTH$}\n")).collect::<String>()
        };
        let (_, metrics) = self.page("/metrics").unwrap_or_default();
        let counted = |line: &&str| {
            let tcp = line.starts_with("istio_requests_total") && line.contains("request_protocol=\"tcp\"");
            (line.starts_with("fhirward_capture") || tcp) && !line.ends_with(" 0")
        };
        let metrics: Vec<&str> = metrics.lines().filter(counted).collect();
        format!(
            "--- agent\n{}\n--- proxy\n{}\n--- metrics\n{}",
            tail(&self.agent),
            tail(&self.proxy),
            metrics.join("\n")
        )
    }

    fn settings_file(&self) -> PathBuf {
        self.node.folder().join("fhirward.yaml")
    }

    fn settings(&self) -> Result<String> {
        let folder = self.node.folder().display();
        let mut text = format!(
            "mesh:\n  manifests: [\"{manifests}\"]\n{mesh}{identity}\
             observe: {{accessLog: {{enabled: {log}}}}}\n\
             admin: {{address: \"127.0.0.1:{ADMIN}\"}}\n\
             {}\
             capture:\n  socket: {folder}/agent.sock\n  pinPath: {}\n  cgroupRoot: {}\n{}",
            self.options.more,
            self.node.pins().display(),
            self.node.cgroup().display(),
            self.options.capture,
            manifests = self.manifests.display(),
            mesh = self.options.mesh,
            identity = match self.options.identity.as_str() {
                "" => String::new(),
                lines => format!("identity:\n{lines}"),
            },
            log = self.options.log,
        );
        if self.options.discover {
            text += "  discover: true\n";
            return Ok(text);
        }
        text += "  pods:\n";
        for actor in &self.actors {
            let (netns, cgroup) = (actor.pod.namespace().path().display(), actor.pod.cgroup().display());
            let (namespace, name) = (&actor.namespace, actor.pod.name());
            writeln!(text, "  - {{name: {namespace}/{name}, netns: {netns}, cgroup: {cgroup}}}")
                .map_err(|_| Error::Late("formatting".to_owned()))?;
        }
        Ok(text)
    }

    /// Writes the manifests of all pods, in one step.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_manifests(&self) -> Result<()> {
        // Of several nodes the first says what is nobody's pod.
        let mut text = match self.options.beside {
            None => format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}\n"),
            Some(_) => "# Pods of another node.\n---\n".to_owned(),
        };
        for actor in self.actors.iter().filter(|actor| actor.told) {
            text += &actor.manifest();
        }
        text += &self.policies;
        let aside = self.node.folder().join("manifests.next");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, self.manifests.join(format!("{}.yaml", self.node.name())))?)
    }
}

/// One exchange, from wherever `command` starts `in-pod`.
fn asked(mut command: Command, to: SocketAddr) -> Result<String> {
    command.args(["ask", &to.to_string(), &next_port().to_string()]);
    let (_, said) = Program::start("in-pod ask", command)?.finish(SOON)?;
    Ok(said.trim().to_owned())
}

/// Another one each time, below the ephemeral ports: the proxy's connections never have it.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000
}
