//! The demo's scene: provider, store and, between them, the proxy from the data mesh's manifests.

mod capture;
mod manifests;
mod words;

pub use capture::Stage;

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use fhirward::{Node, Settings};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{self, Tokens},
    fhir_store::{self, FhirStore},
    idp::{self, Idp},
};

/// The issuer that the data mesh's own manifests name.
pub const ISSUER_BASE: &str = "https://keycloak.idea.lst.tfo.upm.es";
/// The realm of the tutorial.
const REALM: &str = "IDEA4RC";

/// Where the scene listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The README's ports; a free one where somebody else has one of them.
    Usual,
    /// Any free ones.
    Free,
}

/// Why a scene cannot be set.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running scene.
pub struct Scene {
    idp: Idp,
    store: FhirStore,
    proxy: Option<Proxy>,
}

struct Proxy {
    node: Node,
    ingress: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    /// Holds the manifests; gone with the scene.
    _folder: TempDir,
}

impl Scene {
    /// Provider and store alone.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn backends(ports: Ports) -> Result<Self, Failure> {
        let idp = idp::start(idp::Settings {
            http: Some(ports.address(8180)?),
            frontend_url: Some(ISSUER_BASE.to_owned()),
            ..idp::Settings::default()
        })
        .await?;
        let addr = ports.address(8090)?;
        let store =
            fhir_store::start(fhir_store::Settings { addr, ..fhir_store::Settings::default() }).await?;
        Ok(Self { idp, store, proxy: None })
    }

    /// All three.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn open(ports: Ports, stop: CancellationToken) -> Result<Self, Failure> {
        let mut scene = Self::backends(ports).await?;
        let folder = manifests::unpack()?;
        let (ingress, admin) = (ports.address(8080)?, ports.address(15000)?);
        let jwks = format!("{}/realms/{REALM}/protocol/openid-connect/certs", scene.idp.base_url());
        let text = format!(
            "listeners:
- {{name: ingress, address: \"{ingress}\", gateway: {{labels: {{istio: ingressgateway}}, port: 80}}}}
mesh:
  manifests: [\"{}\"]
  workloads:
  - {{name: datamesh/fhir-server, upstream: {{8080: \"{}\"}}}}
identity:
  providers:
  - {{issuer: \"{ISSUER_BASE}/realms/{REALM}\", jwksUri: \"{jwks}\"}}
observe: {{accessLog: {{enabled: false}}}}
admin: {{address: \"{admin}\"}}
",
            folder.path().display(),
            scene.store.addr(),
        );
        let settings =
            Settings::parse("demo", &text).map_err(|problem| fhirward::problems::line(&problem))?;
        let node = Node::start(settings, stop.clone()).await?;
        scene.proxy = Some(Proxy { node, ingress, admin, stop, _folder: folder });
        Ok(scene)
    }

    /// Runs the tutorial's table through the proxy and writes expected beside actual; whether all
    /// was as expected.
    ///
    /// # Errors
    /// When tokens cannot be had or nothing can be written.
    pub async fn table(&self, out: &mut impl Write) -> Result<bool, Failure> {
        let Some(proxy) = &self.proxy else { return Err("this scene has no proxy".into()) };
        let tokens = Tokens::from_demo(&self.idp).await?;
        let base = format!("http://{}", proxy.ingress);
        let outcomes = clients::run(&base, None, &tokens, &clients::tutorial_table()).await?;
        Ok(clients::write_report(out, &outcomes)?)
    }

    /// Writes what is where, and the curl lines to try.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn introduce(&self, out: &mut impl Write) -> io::Result<()> {
        let proxy = self.proxy.as_ref().map(|proxy| (proxy.ingress, proxy.admin));
        words::introduce(out, &self.idp.base_url(), self.store.addr(), proxy)
    }

    /// Drains the proxy, then stops the rest.
    pub async fn close(mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop.cancel();
            proxy.node.finished().await;
        }
        self.idp.stop().await;
        self.store.stop().await;
    }
}

impl Ports {
    /// The usual port if it is free, else any. Somebody may take it before it is used; starting
    /// then fails with a clear error.
    fn address(self, usual: u16) -> io::Result<SocketAddr> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
        if self == Self::Usual && TcpListener::bind(wanted).is_ok() {
            return Ok(wanted);
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
    }
}
