//! The data mesh with capture: pods as network namespaces, the real `fhirward agent` and the real
//! `fhirward node`, and clients that know nothing of either.
//!
//! ```text
//!   datamesh/client ---- curl http://10.96.0.10:8080 (fhir-service) ----> datamesh/fhir-server :8080
//!   outside/stranger --- no label, so not in the mesh                     outside/keycloak :8180
//! ```
//!
//! The manifests are those of the data mesh, unchanged; the namespace's label is what is set and
//! removed. Its place before it is set is held by the same file without that line.

mod curl;
mod daemon;
mod member;
mod settings;
mod story;
mod traces;

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::chown,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Failure, REALM, manifests};
use crate::pods::{self, Node, Place, Pod, Stack};
use daemon::Daemon;

/// The address of the Service `fhir-service`, as a cluster would give it one.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Its port, and that of the FHIR server behind it.
const FHIR_PORT: u16 = 8080;
/// The port of the identity provider.
const IDP_PORT: u16 = 8180;
/// Whom `fhirward node` becomes (`capture.user`), and so who keeps the authority's root.
const PROXY_USER: u32 = 65_532;
/// How long anything may take to come up, or to follow a change. Shown is how long it took.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// The running scene. Dropping it ends every process and removes every namespace and cgroup.
pub struct Stage {
    // Dropped in this order: the agent takes back what it did to the pods before they go.
    proxy: Option<Daemon>,
    agent: Option<Daemon>,
    backends: [Daemon; 2],
    fhir: Pod,
    client: Pod,
    keycloak: Pod,
    stranger: Pod,
    node: Node,
    program: PathBuf,
    /// The realm's URL.
    idp: String,
    stop: CancellationToken,
}

impl Stage {
    /// Makes the pods, starts provider and store inside theirs, then agent and proxy. The label is
    /// not set yet.
    ///
    /// # Errors
    /// Without root, where `fhirward` does not lie beside this program, or when something does not
    /// start.
    pub fn open(stop: CancellationToken) -> Result<Self, Failure> {
        let ours = std::env::current_exe()?;
        let program = ours.with_file_name("fhirward");
        if !program.is_file() {
            return Err(format!("there is no {}: cargo build -p fhirward --bins", program.display()).into());
        }
        let node = Node::new().map_err(|error| match error {
            pods::Error::NotRoot => Failure::from(
                "--capture makes network namespaces and loads BPF programs into the kernel: run it as root",
            ),
            error => error.into(),
        })?;
        let pod = |name| node.pod(name, Stack::Dual);
        let (fhir, client, keycloak, stranger) =
            (pod("fhir-server")?, pod("client")?, pod("keycloak")?, pod("stranger")?);
        route_service(&node, &fhir)?;
        let inside = |pod: &Pod, flag: &str, at: SocketAddr| {
            let mut command = pod.command(&ours);
            command.args([flag, &at.to_string()]);
            Daemon::start(pod.name(), command, node.folder())
        };
        // On every address of the pod: the Service's is one of them.
        let store = inside(&fhir, "--store-at", (Ipv6Addr::UNSPECIFIED, FHIR_PORT).into())?;
        let address = SocketAddr::from((v4(&keycloak)?, IDP_PORT));
        let backends = [store, inside(&keycloak, "--idp-at", address)?];
        let idp = format!("http://{address}/realms/{REALM}");
        let (proxy, agent) = (None, None);
        let mut stage =
            Self { proxy, agent, backends, fhir, client, keycloak, stranger, node, program, idp, stop };
        stage.prepare()?;
        Ok(stage)
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        fs::create_dir(self.authority())?;
        chown(self.authority(), Some(PROXY_USER), Some(PROXY_USER))?;
        fs::create_dir(self.manifests())?;
        manifests::write_to(&self.manifests())?;
        self.label(false)?;
        fs::write(self.config(), settings::text(self)?)?;
        let (store, idp) = (format!("{}/metadata", self.fhir_url()), self.idp.clone());
        self.until("the FHIR server answers", |stage| curl::get(&stage.fhir, &store).status == 200)?;
        self.until("the identity provider answers", |stage| curl::get(&stage.keycloak, &idp).status == 200)?;
        let agent = self.ours(Place::Agent, "agent")?;
        self.agent = Some(agent);
        let socket = self.socket();
        self.until("the agent's socket is there", |_| socket.exists())?;
        self.start_proxy()
    }

    /// Starts the proxy; ready when this returns.
    fn start_proxy(&mut self) -> Result<(), Failure> {
        let proxy = self.ours(Place::Proxy, "node")?;
        self.proxy = Some(proxy);
        self.until("the proxy is ready", |stage| stage.readyz().is_ok_and(|status| status == 200))
    }

    fn ours(&self, place: Place, verb: &str) -> Result<Daemon, Failure> {
        let mut command = self.node.command(place, &self.program);
        command.arg(verb).arg("--config").arg(self.config());
        Daemon::start(verb, command, self.node.folder())
    }

    /// SIGKILL, as the kernel does when memory is short.
    fn kill_proxy(&mut self) {
        self.proxy = None;
    }

    /// Sets or removes the label, as `kubectl label namespace datamesh istio-injection=enabled` does.
    fn label(&self, set: bool) -> Result<(), Failure> {
        let text = manifests::namespace(set).ok_or("the namespace's manifest has no label to remove")?;
        // Put in place whole: half a file would be refused, and told.
        let aside = self.node.folder().join("namespace.next");
        fs::write(&aside, text)?;
        fs::rename(aside, self.manifests().join(manifests::NAMESPACE_FILE))?;
        Ok(())
    }

    fn readyz(&self) -> Result<u16, Failure> {
        Ok(curl::run(self.node.command(Place::Other, "curl"), &["http://127.0.0.1:15000/readyz"]).status)
    }

    fn fhir_url(&self) -> String {
        format!("http://{SERVICE}:{FHIR_PORT}")
    }

    fn config(&self) -> PathBuf {
        self.node.folder().join("fhirward.yaml")
    }

    fn manifests(&self) -> PathBuf {
        self.node.folder().join("data-mesh")
    }

    /// The folder of the embedded authority: its root, from the proxy's start on.
    fn authority(&self) -> PathBuf {
        self.node.folder().join("authority")
    }

    fn socket(&self) -> PathBuf {
        self.node.folder().join("agent.sock")
    }

    /// Waits until `good`, and gives how long that took.
    fn wait(&mut self, mut good: impl FnMut(&Self) -> bool) -> Result<Option<Duration>, Failure> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if good(self) {
                return Ok(Some(began.elapsed()));
            }
            if self.stop.is_cancelled() {
                return Err("interrupted".into());
            }
            for daemon in self.agent.iter_mut().chain(&mut self.proxy).chain(&mut self.backends) {
                daemon.check()?;
            }
            thread::sleep(POLL);
        }
        Ok(None)
    }

    fn until(&mut self, what: &str, good: impl FnMut(&Self) -> bool) -> Result<(), Failure> {
        if self.wait(good)?.is_some() {
            return Ok(());
        }
        let mut told = format!("{what}: not within {} s", PATIENCE.as_secs());
        for daemon in self.agent.iter().chain(&self.proxy).chain(&self.backends) {
            told += &daemon.tail();
        }
        Err(told.into())
    }

    /// Tells the whole story, expected beside actual; whether all was as expected.
    ///
    /// # Errors
    /// When a process ends that should not, or nothing can be written.
    pub fn tell(&mut self, out: &mut impl Write) -> Result<bool, Failure> {
        story::tell(self, out)
    }

    /// Sets the label, and writes what is where and what to try.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn introduce(&self, out: &mut impl Write) -> Result<(), Failure> {
        self.label(true)?;
        Ok(self.words(out)?)
    }

    fn words(&self, out: &mut impl Write) -> io::Result<()> {
        let namespace = self.manifests().join(manifests::NAMESPACE_FILE);
        writeln!(
            out,
            "FHIR server        {}  (the address of fhir-service; pod {})",
            self.fhir_url(),
            self.fhir.name()
        )?;
        writeln!(out, "identity provider  {}", self.idp)?;
        writeln!(
            out,
            "the label          {}  (edit it: it is followed within a second)",
            namespace.display()
        )?;
        writeln!(
            out,
            "diagnosis          {} status --config {}",
            self.program.display(),
            self.config().display()
        )?;
        writeln!(out, "\nTry, as root:")?;
        for pod in [&self.client, &self.stranger] {
            let (name, cgroup, netns) =
                (pod.name(), pod.cgroup().display(), pod.namespace().path().display());
            writeln!(
                out,
                "  {name}() {{ sh -c 'echo $$ > {cgroup}/cgroup.procs; exec nsenter --net={netns} \"$@\"' sh \"$@\"; }}"
            )?;
        }
        writeln!(
            out,
            "  ALICE=$(client curl -s {}/protocol/openid-connect/token -d client_id=idea -d grant_type=password \\
    -d username=alice -d password='alice1234!' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')
  client curl -i {base}/Patient                                      # 403: no token
  client curl -i {base}/Patient -H \"Authorization: Bearer $ALICE\"    # 200: a Patient may GET
  stranger curl -i {base}/Patient                                    # refused: STRICT
\nCtrl-C ends it.",
            self.idp,
            base = self.fhir_url(),
        )?;
        out.flush()
    }
}

/// Ends the proxy and the agent as an operator would, so that the agent un-enrols the pods.
impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in [self.proxy.take(), self.agent.take()].into_iter().flatten() {
            daemon.end();
        }
    }
}

/// What kube-proxy does in a cluster, in its direct-routing form: the Service's address leads to the
/// pod, which answers to it.
fn route_service(node: &Node, fhir: &Pod) -> Result<(), Failure> {
    node.namespace().ip(&format!("route add {SERVICE}/32 via {} dev {}\n", v4(fhir)?, fhir.interface()))?;
    fhir.namespace().ip(&format!("addr add {SERVICE}/32 dev lo scope host\n"))?;
    Ok(())
}

fn v4(pod: &Pod) -> Result<Ipv4Addr, Failure> {
    pod.v4().ok_or_else(|| format!("the pod {} has no IPv4 address", pod.name()).into())
}
