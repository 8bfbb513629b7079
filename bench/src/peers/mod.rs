//! The peers: how each is started, with the same policy as far as it can have one.

mod configs;
pub mod process;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tempfile::TempDir;
use tests::oracle::translate::{Manifests, TranslateError};

use crate::load::Protocol;
use crate::meshes;
use crate::tokens::{Algorithm, Tokens};
use process::{Process, free_address};

/// What stands side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Peer {
    /// Envoy with a cache of 1,000 verified tokens for each provider: the fair setting.
    Envoy,
    /// Envoy as istiod configures it: no cache of tokens.
    EnvoyNoCache,
    /// Envoy with the cache and Istio's access log, to a file.
    EnvoyLog,
    /// hyper and tokio, no policy: the limit.
    Bare,
    /// HAProxy's `jwt_verify`.
    Haproxy,
    /// Google's fhir-gateway.
    FhirGateway,
    /// Ours, without access log as Envoy is.
    Fhirward,
    /// Ours at its defaults: access log with reasons, to a file.
    FhirwardDefaults,
}

impl Peer {
    /// As on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::EnvoyNoCache => "envoy-no-cache",
            Self::EnvoyLog => "envoy-log",
            Self::Bare => "bare",
            Self::Haproxy => "haproxy",
            Self::FhirGateway => "fhir-gateway",
            Self::Fhirward => "fhirward",
            Self::FhirwardDefaults => "fhirward-defaults",
        }
    }
}

/// Where the programs are. A peer without program is a dash with that reason.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The Envoy binary.
    pub envoy: Option<PathBuf>,
    /// The HAProxy binary.
    pub haproxy: Option<PathBuf>,
    /// The folder with the gateway's `server.jar` and `lib`.
    pub fhir_gateway: Option<PathBuf>,
    /// The folder with `fhirward` and `bare-proxy`.
    pub ours: PathBuf,
}

/// Why a peer does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Files, ports, processes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not there.
    #[error("{0} is not there: cargo xtask provision")]
    Missing(&'static str),
    /// The manifests have no translation.
    #[error(transparent)]
    Translate(#[from] TranslateError),
    /// The translation is not what it was.
    #[error("the translated configuration: {0}")]
    Config(#[from] serde_json::Error),
}

/// What all peers share.
pub struct World {
    /// Keys and tokens.
    pub tokens: Tokens,
    /// The FHIR server behind every peer.
    pub upstream: SocketAddr,
    /// The core of every peer.
    pub core: usize,
    /// Programs.
    pub programs: Programs,
    /// Where peers get their folders.
    pub runs: PathBuf,
    meshes: RefCell<HashMap<usize, Rc<Mesh>>>,
}

struct Mesh {
    text: String,
    manifests: Manifests,
}

/// What a peer is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// How many policies.
    pub policies: usize,
    /// How tokens are signed, for peers that know one key only.
    pub algorithm: Algorithm,
    /// How requests travel, for peers that need a listener for each.
    pub protocol: Protocol,
}

/// A peer's process and addresses.
pub struct Up {
    /// The process.
    pub process: Process,
    /// Where the measured workload listens.
    pub target: SocketAddr,
    /// Where the workload beside it listens.
    pub other: Option<SocketAddr>,
    /// The admin server.
    pub admin: Option<SocketAddr>,
    /// The manifests' file, where the peer reads that.
    pub manifests: Option<PathBuf>,
    _folder: TempDir,
}

/// How a program is to be run.
struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    target: SocketAddr,
    other: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    manifests: Option<PathBuf>,
}

impl Launch {
    fn new(program: PathBuf, arguments: &[&str], target: SocketAddr) -> Self {
        let arguments = arguments.iter().map(OsString::from).collect();
        Self {
            program,
            arguments,
            environment: Vec::new(),
            target,
            other: None,
            admin: None,
            manifests: None,
        }
    }
}

impl World {
    /// A world whose peers run on `core` and keep their files below `runs`.
    #[must_use]
    pub fn new(tokens: Tokens, upstream: SocketAddr, core: usize, programs: Programs, runs: PathBuf) -> Self {
        Self { tokens, upstream, core, programs, runs, meshes: RefCell::default() }
    }

    /// The manifests with so many policies.
    ///
    /// # Errors
    /// When the translator cannot read them.
    pub fn manifests(&self, policies: usize) -> Result<String, StartError> {
        Ok(self.mesh(policies)?.text.clone())
    }

    fn mesh(&self, policies: usize) -> Result<Rc<Mesh>, StartError> {
        if let Some(mesh) = self.meshes.borrow().get(&policies) {
            return Ok(Rc::clone(mesh));
        }
        let provider = &self.tokens.provider;
        let text = meshes::manifests(&provider.issuer(), &provider.jwks, policies, 0);
        let mesh = Rc::new(Mesh { manifests: Manifests::parse(&text)?, text });
        self.meshes.borrow_mut().insert(policies, Rc::clone(&mesh));
        Ok(mesh)
    }

    /// Starts a peer; it is up when it answers, which the caller has to see to.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, peer: Peer, purpose: Purpose) -> Result<Up, StartError> {
        let folder = tempfile::Builder::new().prefix(peer.name()).tempdir_in(&self.runs)?;
        let at = folder.path();
        let launch = match peer {
            Peer::Envoy => self.envoy(at, purpose, Some(1000), false)?,
            Peer::EnvoyNoCache => self.envoy(at, purpose, None, false)?,
            Peer::EnvoyLog => self.envoy(at, purpose, Some(1000), true)?,
            Peer::Bare => {
                let target = free_address()?;
                let program = self.ours("bare-proxy")?;
                Launch::new(program, &[&target.to_string(), &self.upstream.to_string()], target)
            }
            Peer::Haproxy => self.haproxy(at, purpose)?,
            Peer::FhirGateway => self.fhir_gateway()?,
            Peer::Fhirward => self.fhirward(at, purpose, false)?,
            Peer::FhirwardDefaults => self.fhirward(at, purpose, true)?,
        };
        let process = Process::start(&launch.program, &launch.arguments, &launch.environment, at, self.core)?;
        let Launch { target, other, admin, manifests, .. } = launch;
        Ok(Up { process, target, other, admin, manifests, _folder: folder })
    }

    /// One of our own programs.
    pub(crate) fn ours(&self, name: &'static str) -> Result<PathBuf, StartError> {
        let program = self.programs.ours.join(name);
        if program.is_file() { Ok(program) } else { Err(StartError::Missing(name)) }
    }

    fn envoy(
        &self,
        folder: &Path,
        purpose: Purpose,
        cache: Option<u32>,
        log: bool,
    ) -> Result<Launch, StartError> {
        let program = self.programs.envoy.clone().ok_or(StartError::Missing("envoy"))?;
        let (target, other, admin) = (free_address()?, free_address()?, free_address()?);
        let mesh = self.mesh(purpose.policies)?;
        let config = configs::envoy(&mesh.manifests, [target, other], admin, self.upstream, cache, log)?;
        fs::write(folder.join("envoy.json"), config)?;
        let mut launch = Launch::new(
            program,
            &["-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
            target,
        );
        (launch.other, launch.admin) = (Some(other), Some(admin));
        Ok(launch)
    }

    fn haproxy(&self, folder: &Path, purpose: Purpose) -> Result<Launch, StartError> {
        let program = self.programs.haproxy.clone().ok_or(StartError::Missing("haproxy"))?;
        let target = free_address()?;
        fs::write(folder.join("public.pem"), self.tokens.provider.pem(purpose.algorithm))?;
        fs::write(folder.join("haproxy.cfg"), configs::haproxy(target, self.upstream, purpose))?;
        Ok(Launch::new(program, &["-db", "-f", "haproxy.cfg"], target))
    }

    fn fhir_gateway(&self) -> Result<Launch, StartError> {
        let folder = self.programs.fhir_gateway.clone().ok_or(StartError::Missing("fhir-gateway"))?;
        let target = free_address()?;
        let classes = format!("{0}/server.jar:{0}/lib/*", folder.display());
        let port = format!("--server.port={}", target.port());
        let words = ["-Xmx256m", "-cp", &classes, "peer.Gateway", "--server.address=127.0.0.1", &port];
        let mut launch = Launch::new("java".into(), &words, target);
        launch.environment = vec![
            ("PROXY_TO", format!("http://{}/fhir", self.upstream)),
            ("TOKEN_ISSUER", self.tokens.provider.issuer()),
            ("ACCESS_CHECKER", "patient".to_owned()),
            ("BACKEND_TYPE", "HAPI".to_owned()),
        ];
        Ok(launch)
    }

    fn fhirward(&self, folder: &Path, purpose: Purpose, defaults: bool) -> Result<Launch, StartError> {
        let program = self.ours("fhirward")?;
        let (target, other, admin) = (free_address()?, free_address()?, free_address()?);
        let manifests = folder.join("manifests");
        fs::create_dir(&manifests)?;
        let file = manifests.join("mesh.yaml");
        fs::write(&file, &self.mesh(purpose.policies)?.text)?;
        let settings = configs::fhirward([target, other], admin, self.upstream, defaults);
        fs::write(folder.join("fhirward.yaml"), settings)?;
        let mut launch = Launch::new(program, &["run", "--config", "fhirward.yaml"], target);
        (launch.other, launch.admin, launch.manifests) = (Some(other), Some(admin), Some(file));
        Ok(launch)
    }
}
