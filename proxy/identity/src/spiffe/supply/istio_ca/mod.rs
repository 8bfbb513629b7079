//! Istio's certificate authority: `istio.v1.auth.IstioCertificateService/CreateCertificate`, asked as
//! ztunnel asks it. The key is made here and stays here; the authority sees a request for signing.
//!
//! The service has no call for roots: they come last in each answer, and an answer counts only where
//! its leaf holds by them, names the workload and fits our key.

mod answer;
mod request;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use policy::SpiffeId;
use rustls_pki_types::ServerName;
use tokio::{sync::Semaphore, time::Instant};
use tonic::{Code, metadata::MetadataValue};

use super::{
    Ask, Known, Material, Next, Supplier, SupplyError, Svid,
    remote::{
        Call, Link, LinkError,
        messages::{IstioCertificateRequest, IstioCertificateResponse, Metadata, Text},
    },
};
use crate::{
    Clock,
    net::tls,
    spiffe::{Bundle, IstioCaSettings},
};

use answer::Answer;
use token::Token;

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Whom the certificate is for, where that is not who asks.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// Which of the mesh's clusters asks.
const CLUSTER: &str = "clusterid";
/// The largest answer.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Questions under way at once.
const AT_ONCE: usize = 16;
/// A connection serves many workloads that start together, and no longer: `caFile` is read for each.
const LINK_LIFE: Duration = Duration::from_secs(60);

/// Certificates from istiod, or another that speaks its protocol.
pub(super) struct IstioCa {
    settings: IstioCaSettings,
    clock: Clock,
    places: Semaphore,
    line: tokio::sync::Mutex<Line>,
    roots: Mutex<Roots>,
}

/// The connection that the questions share.
#[derive(Default)]
struct Line {
    link: Option<(Link, Instant)>,
    /// When there was none to be had, and why.
    failed: Option<(Instant, SupplyError)>,
}

/// Whom the answers said to trust.
#[derive(Default)]
struct Roots {
    /// Until when, in Unix seconds: the end of the certificate that came with them.
    by_workload: HashMap<SpiffeId, (Bundle, i64)>,
    newest: Option<SpiffeId>,
    version: u64,
}

impl IstioCa {
    pub(super) fn new(settings: IstioCaSettings, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            places: Semaphore::new(AT_ONCE),
            line: tokio::sync::Mutex::default(),
            roots: Mutex::default(),
        }
    }

    fn down(&self, error: &impl ToString) -> SupplyError {
        SupplyError::Down(format!("the authority at {}", self.settings.address), error.to_string())
    }

    async fn create(&self, id: &SpiffeId) -> Result<Material, SupplyError> {
        let _place = self.places.acquire().await.map_err(|error| self.down(&error))?;
        let (csr, key) = request::make(id)?;
        let link = self.link().await?;
        let token = self.token().await?;
        let call = Call {
            path: CREATE,
            request: self.request(id, csr, &token)?,
            bytes: MESSAGE_BYTES,
            limit: self.settings.timeout(),
        };
        let answered = link.ask::<_, IstioCertificateResponse>(call).await;
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                // Whatever it was, the next question goes another way.
                self.forget_link().await;
                return Err(self.refused(&error, &token, id));
            }
        };
        let refused = |reason| SupplyError::Answer(id.to_string(), reason);
        let answer = Answer::read(&answered.cert_chain).map_err(refused)?;
        let material = Material { chain: answer.chain, key };
        let not_after = answer::check(id, &material, &answer.roots, self.clock.now())?;
        self.learn(id, answer.roots, not_after);
        Ok(material)
    }

    /// The question, with what proves who asks.
    fn request(
        &self,
        id: &SpiffeId,
        csr: String,
        token: &Token,
    ) -> Result<tonic::Request<IstioCertificateRequest>, SupplyError> {
        let impersonated = || {
            let text = Text { string_value: id.to_string() };
            Metadata { fields: BTreeMap::from([(IMPERSONATED.to_owned(), text)]) }
        };
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.settings.leaf_seconds).unwrap_or(i64::MAX),
            metadata: self.settings.impersonate.then(impersonated),
        });
        request.metadata_mut().insert("authorization", token.bearer());
        if !self.settings.cluster_id.is_empty() {
            let cluster = MetadataValue::try_from(&self.settings.cluster_id);
            request.metadata_mut().insert(CLUSTER, cluster.map_err(|error| self.down(&error))?);
        }
        Ok(request)
    }

    /// Read each time, as it is renewed under us.
    async fn token(&self) -> Result<Token, SupplyError> {
        let file = self.settings.token_file.clone();
        let token = tokio::task::spawn_blocking(move || Token::read(&file)).await;
        token.map_err(|error| self.down(&error))?
    }

    /// Why there is no answer, with what may be wrong where the authority does not say.
    fn refused(&self, error: &LinkError, token: &Token, id: &SpiffeId) -> SupplyError {
        if !matches!(error, LinkError::Status(Code::Unauthenticated, _)) {
            return self.down(error);
        }
        let doubt = token.doubt(self.settings.impersonate.then_some(id), self.clock.now());
        let cluster = match self.settings.cluster_id.as_str() {
            "" => "no clusterId".to_owned(),
            cluster => format!("clusterId {cluster}"),
        };
        self.down(&format!("{error} ({cluster}; {doubt})"))
    }

    /// The connection in use, or a new one.
    async fn link(&self) -> Result<Link, SupplyError> {
        let asked = Instant::now();
        let mut line = self.line.lock().await;
        if let Some((link, since)) = &line.link
            && !link.is_closed()
            && since.elapsed() < LINK_LIFE
        {
            return Ok(link.clone());
        }
        // Whoever waited for an attempt that failed need not see another fail.
        if let Some((_, error)) = line.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        let connected = self.connect().await;
        let now = Instant::now();
        *line = match &connected {
            Ok(link) => Line { link: Some((link.clone(), now)), failed: None },
            Err(error) => Line { link: None, failed: Some((now, error.clone())) },
        };
        connected
    }

    async fn connect(&self) -> Result<Link, SupplyError> {
        let file = &self.settings.ca_file;
        let failed = |reason: String| SupplyError::File { path: file.clone(), reason };
        let config = tls::from_file(file).await.map_err(|error| failed(error.to_string()))?;
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (host, port) = self.settings.host_and_port().map_err(|error| self.down(&error))?;
        let name = self.settings.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| self.down(&error))?;
        let link = Link::tls((host, port), &name, Arc::new(config), self.settings.timeout()).await;
        link.map_err(|error: LinkError| self.down(&error))
    }

    async fn forget_link(&self) {
        self.line.lock().await.link = None;
    }

    fn learn(&self, id: &SpiffeId, bundle: Bundle, not_after: i64) {
        let now = self.clock.now();
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        roots.by_workload.insert(id.clone(), (bundle, not_after));
        // A workload that is gone vouches for nothing, once its certificate is over.
        roots.by_workload.retain(|_, (_, end)| *end >= now);
        roots.newest = Some(id.clone());
        roots.version += 1;
    }
}

impl Supplier for IstioCa {
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>> {
        Box::pin(async move { self.create(ask.id).await.map(Some) })
    }

    fn known(&self) -> Result<Known, SupplyError> {
        let now = self.clock.now();
        let roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Known::default();
        // Always the same order: a change of it is no change of what is trusted.
        let counts =
            |(id, (_, end)): &(&SpiffeId, &(Bundle, i64))| *end >= now || roots.newest.as_ref() == Some(id);
        let mut all: Vec<_> = roots.by_workload.iter().filter(counts).collect();
        all.sort_by_key(|(id, _)| id.to_string());
        for (id, (bundle, _)) in all {
            known.add(&id.trust_domain, bundle)?;
        }
        Ok(known)
    }

    fn next(&self, _: &Svid) -> Next {
        Next::Renew
    }

    fn version(&self) -> u64 {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).version
    }
}
