//! Two nodes on one machine, each with agent, proxy and pods of its own, and the wire between them.
//!
//! ```text
//!   node 0                        the fabric                        node 1
//!   agent, proxy, pods -- fabric ----- n0    n1 ----- fabric -- agent, proxy, pods
//! ```
//!
//! Both read the same manifests and have the same authority's folder.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use demo::pods::{Fabric, Stack};

use super::{Actor, Beside, Error, Options, Result, SOON, Stage, Wire, eventually};

/// How many nodes a cluster has.
pub const NODES: u8 = 2;
/// Whom `fhirward node` becomes (`capture.user`), and so who keeps the roots.
const PROXY_USER: u32 = 65_532;

/// Two nodes. What is in it ends with it.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Stage>,
    fabric: Fabric,
    authority: PathBuf,
}

impl Cluster {
    /// Nodes without pods; nothing runs yet. The nodes' settings are those of `options`, and an authority
    /// that both share, with `authority` (such as `, leafSeconds: 60`) beside its folder.
    ///
    /// # Errors
    /// Without root.
    pub fn new(options: &Options, authority: &str) -> Result<Self> {
        let mut nodes: Vec<Stage> = Vec::new();
        for number in 0..NODES {
            let first = nodes.first().map(|first| &first.node);
            let folder = first.map(|node| node.folder().to_owned());
            let mut options = options.clone();
            options.beside =
                folder.as_ref().map(|folder| Beside { number, manifests: folder.join("manifests") });
            let mut stage = Stage::new(options)?;
            let folder = folder.unwrap_or_else(|| stage.node.folder().to_owned()).join("authority");
            stage.options().identity += &certificates(&folder, authority);
            nodes.push(stage);
        }
        let all: Vec<_> = nodes.iter().map(|stage| &stage.node).collect();
        let fabric = Fabric::new(&all)?;
        let authority = nodes.first().map(|stage| stage.node.folder().join("authority"));
        let authority = authority.ok_or_else(|| Error::Late("no node".to_owned()))?;
        fs::create_dir(&authority)?;
        chown(&authority, Some(PROXY_USER), Some(PROXY_USER))?;
        Ok(Self { nodes, fabric, authority })
    }

    /// The folder of the authority that both nodes share: its roots, with their keys, and `bundle.pem`.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// A folder with `tls.crt` and `tls.key` for `id`, signed by the newest root: a member of the mesh that is
    /// not one of ours, or a thief.
    ///
    /// # Errors
    /// When there is no root yet.
    pub fn certificate(&self, name: &str, id: &str) -> Result<PathBuf> {
        let failed = |error: certs::Error| Error::Late(error.to_string());
        let root = newest(&self.authority)?;
        let pem = |extension: &str| fs::read_to_string(root.with_extension(extension));
        let authority = certs::Authority::from_pem(&pem("crt")?, &pem("key")?).map_err(failed)?;
        let leaf = authority.issue(&certs::LeafRequest::for_workload(id)).map_err(failed)?;
        let folder = self.authority.with_file_name(format!("certificate-{name}"));
        leaf.write_to(&folder, &authority).map_err(failed)?;
        Ok(folder)
    }

    /// An eye between the nodes.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn wire(&self) -> Result<Wire> {
        Wire::watch(self.fabric.namespace())
    }

    /// The wire's network namespace.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Adds a pod to a node.
    ///
    /// # Errors
    /// When there is no such node, or the pod cannot be made.
    pub fn pod(&mut self, node: usize, name: &str, enrolled: bool) -> Result<&mut Actor> {
        let stage = self.nodes.get_mut(node).ok_or_else(|| Error::Late(format!("no node {node}")))?;
        stage.pod(name, Stack::Dual, enrolled)
    }

    /// The node with that pod.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[allow(clippy::panic)]
    pub fn of(&self, name: &str) -> &Stage {
        let has = |stage: &&Stage| stage.actors.iter().any(|actor| actor.pod.name() == name);
        self.nodes.iter().find(has).unwrap_or_else(|| panic!("a pod named {name}"))
    }

    /// The pod of that name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn actor(&self, name: &str) -> &Actor {
        self.of(name).actor(name)
    }

    /// A port of a pod, by its IPv4 address or, for `family` 1, its IPv6 address.
    ///
    /// # Panics
    /// When there is no such pod.
    #[must_use]
    #[allow(clippy::panic)]
    pub fn at(&self, name: &str, family: usize, port: u16) -> SocketAddr {
        let addresses = self.actor(name).pod.addresses();
        let address = addresses.get(family).unwrap_or_else(|| panic!("{name} has no address {family}"));
        (*address, port).into()
    }

    /// One exchange from a pod: `through NAME PEER LOCAL`, `past …` or `error …`.
    #[must_use]
    pub fn ask(&self, from: &str, to: SocketAddr) -> String {
        self.of(from).ask(&self.actor(from).pod, to)
    }

    /// Puts policies beside the pods' manifests.
    ///
    /// # Errors
    /// When the manifests cannot be written.
    pub fn policies(&mut self, policies: &str) -> Result<()> {
        self.nodes.first_mut().map_or(Ok(()), |first| first.policies(policies))
    }

    /// Starts agents and proxies; enrolled pods are captured and have their certificates when this returns.
    ///
    /// # Errors
    /// When one does not start or is late.
    pub fn start(&mut self) -> Result<()> {
        // All manifests are there before anybody reads them.
        for stage in &mut self.nodes {
            stage.write_manifests()?;
        }
        for stage in &mut self.nodes {
            stage.start_uncaptured()?;
        }
        self.until_ready()
    }

    /// Waits until every node's proxy has its pods.
    ///
    /// # Errors
    /// When one is late.
    pub fn until_ready(&self) -> Result<()> {
        self.nodes.iter().try_for_each(Stage::until_held)
    }

    /// What all agents and proxies have written.
    #[must_use]
    pub fn told(&self) -> String {
        let told = self.nodes.iter().enumerate();
        told.map(|(number, stage)| format!("===== node {number}\n{}\n", stage.told())).collect()
    }

    /// Asks until the answer begins with `start`.
    ///
    /// # Errors
    /// When it does not in time; with what everybody wrote.
    pub fn until_said(&self, from: &str, to: SocketAddr, start: &str) -> Result<String> {
        eventually(&format!("{from} to {to}: {start}"), SOON, || {
            let said = self.ask(from, to);
            if said.starts_with(start) { Ok(said) } else { Err(said) }
        })
        .map_err(|error| Error::Late(format!("{error}\n{}", self.told())))
    }
}

/// `root-<created>.crt`, the newest.
fn newest(authority: &Path) -> Result<PathBuf> {
    let mut roots: Vec<PathBuf> = fs::read_dir(authority)?.flatten().map(|entry| entry.path()).collect();
    roots.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    roots.sort();
    roots.pop().ok_or_else(|| Error::Late(format!("no root in {}", authority.display())))
}

fn certificates(folder: &Path, more: &str) -> String {
    format!("  certificates: {{embedded: {{folder: \"{}\"{more}}}}}\n", folder.display())
}
