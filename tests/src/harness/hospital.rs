//! The data mesh of the tutorial, with the embedded provider and store around the real proxy.

use std::net::SocketAddr;

use demo::{
    clients::Tokens,
    fhir_store::{self, FhirStore},
    idp::{self, Idp},
};

use super::{Proxy, repository};

/// The issuer that the data mesh's own manifests name.
pub const ISSUER_BASE: &str = "https://keycloak.idea.lst.tfo.upm.es";

/// Provider, store and proxy, wired by the unchanged manifests of `config/data-mesh`.
pub struct Hospital {
    /// The embedded provider.
    pub idp: Idp,
    /// The embedded FHIR store.
    pub store: FhirStore,
    /// The proxy under test, with a listener `ingress`.
    pub proxy: Proxy,
    /// Everybody's tokens.
    pub tokens: Tokens,
}

/// Why a hospital could not open.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

impl Hospital {
    /// Starts all three; `more` is appended to the settings.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn open(more: &str) -> Result<Self, Error> {
        let idp = idp::start(idp::Settings {
            frontend_url: Some(ISSUER_BASE.to_owned()),
            ..idp::Settings::default()
        })
        .await?;
        let store = fhir_store::start(fhir_store::Settings::default()).await?;
        let jwks = format!("{}/realms/IDEA4RC/protocol/openid-connect/certs", idp.base_url());
        let proxy = Self::proxy(store.addr(), &jwks, more).await?;
        let tokens = Tokens::from_demo(&idp).await?;
        Ok(Self { idp, store, proxy, tokens })
    }

    /// The proxy alone, before any upstream and provider: real ones in other tests.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn proxy(upstream: SocketAddr, jwks: &str, more: &str) -> Result<Proxy, Error> {
        let folder = repository().join("config/data-mesh");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = format!("manifests/{}", path.file_name().unwrap_or_default().to_string_lossy());
            files.push((name, std::fs::read_to_string(&path)?));
        }
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let settings = format!(
            "listeners:
- name: ingress
  address: {{ingress}}
  gateway: {{labels: {{istio: ingressgateway}}, port: 80}}
mesh:
  manifests: [manifests]
  workloads:
  - name: datamesh/fhir-server
    upstream: {{8080: \"{upstream}\"}}
identity:
  providers:
  - issuer: {ISSUER_BASE}/realms/IDEA4RC
    jwksUri: {jwks}
{more}"
        );
        Ok(Proxy::start(&["ingress"], &settings, &files).await?)
    }
}
