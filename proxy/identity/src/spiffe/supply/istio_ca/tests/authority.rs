//! An authority that answers as it is told to.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use certs::{Authority, LeafRequest};
use futures_util::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Request, Response, Status, server::UnaryService};
use tonic_prost::ProstCodec;

use super::super::{
    super::remote::{
        messages::{IstioCertificateRequest, IstioCertificateResponse},
        testing::serve,
    },
    CREATE, IMPERSONATED, MESSAGE_BYTES,
};
use super::OTHER;
use crate::spiffe::IstioCaSettings;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    /// With a life of a few seconds.
    Short,
    /// As `Short`, and a new root beside the old.
    TwoRoots,
    /// As `Short`, by the new root alone.
    NewRoot,
    Refuse,
    Hang,
    Empty,
    Garbage,
    NotDer,
    LeafOnly,
    WrongId,
    TwoNames,
    OtherKey,
    OthersRoot,
    WithoutIntermediate,
    RootFirst,
    RootTwice,
    Unordered,
    Huge,
    TooMany,
}

/// One question as it came.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) bearer: String,
    pub(super) cluster: String,
    pub(super) impersonated: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) seconds: i64,
    pub(super) server_name: Option<String>,
}

struct Signer {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What its connections share.
struct Desk {
    mood: Mutex<Mood>,
    heard: Mutex<Vec<Heard>>,
    connections: Mutex<usize>,
    root: Signer,
    /// Below the root, and below that.
    between: [Signer; 2],
    new_root: Signer,
}

pub(super) struct Istiod {
    folder: TempDir,
    desk: Arc<Desk>,
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    running: Option<JoinSet<()>>,
}

impl Istiod {
    pub(super) async fn start(mood: Mood) -> Self {
        let root = signer("root", None);
        let upper = signer("upper", Some(&root));
        let lower = signer("lower", Some(&upper));
        let desk = Desk {
            mood: Mutex::new(mood),
            heard: Mutex::default(),
            connections: Mutex::default(),
            root,
            between: [upper, lower],
            new_root: signer("new root", None),
        };
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::mint("control plane").unwrap();
        let leaf = authority.issue(&LeafRequest::for_names(["istiod.istio-system.svc"])).unwrap();
        fs::write(folder.path().join("root-cert.pem"), authority.certificate_pem()).unwrap();
        fs::write(folder.path().join("istio-token"), "first\n").unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(leaf.chain_der(), leaf.key_der())
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut istiod = Self { folder, desk: Arc::new(desk), address, tls: Arc::new(tls), running: None };
        istiod.run().await;
        istiod
    }

    pub(super) fn settings(&self, timeout_ms: u64) -> IstioCaSettings {
        IstioCaSettings {
            address: self.address.to_string(),
            server_name: Some("istiod.istio-system.svc".to_owned()),
            ca_file: self.folder.path().join("root-cert.pem"),
            token_file: self.token_file(),
            cluster_id: "Kubernetes".to_owned(),
            impersonate: true,
            leaf_seconds: 86_400,
            timeout_ms,
        }
    }

    pub(super) fn token_file(&self) -> PathBuf {
        self.folder.path().join("istio-token")
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.desk.mood.lock().unwrap() = mood;
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.desk.heard.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.desk.connections.lock().unwrap()
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        self.desk.root.certificate.clone()
    }

    pub(super) fn new_root(&self) -> CertificateDer<'static> {
        self.desk.new_root.certificate.clone()
    }

    /// As a leaf's chain has them.
    pub(super) fn intermediates(&self) -> [CertificateDer<'static>; 2] {
        let [upper, lower] = &self.desk.between;
        [lower.certificate.clone(), upper.certificate.clone()]
    }

    /// At the address it had, if it had one.
    pub(super) async fn run(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (desk, tls) = (Arc::clone(&self.desk), TlsAcceptor::from(Arc::clone(&self.tls)));
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (desk, tls) = (Arc::clone(&desk), tls.clone());
                connections.spawn(async move {
                    let Ok(io) = tls.accept(socket).await else { return };
                    *desk.connections.lock().unwrap() += 1;
                    let name = io.get_ref().1.server_name().map(str::to_owned);
                    let answer = move |request: http::Request<_>| {
                        let service = Create { desk: Arc::clone(&desk), name: name.clone() };
                        async move {
                            assert_eq!(request.uri().path(), CREATE);
                            let codec =
                                ProstCodec::<IstioCertificateResponse, IstioCertificateRequest>::default();
                            tonic::server::Grpc::new(codec).unary(service, request).await
                        }
                    };
                    serve(io, Arc::new(answer)).await;
                });
            }
        });
        self.running = Some(running);
    }

    pub(super) async fn die(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
    }
}

struct Create {
    desk: Arc<Desk>,
    name: Option<String>,
}

impl UnaryService<IstioCertificateRequest> for Create {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<'static, Result<Response<IstioCertificateResponse>, Status>>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let (desk, server_name) = (Arc::clone(&self.desk), self.name.clone());
        Box::pin(async move {
            let said = |name: &str| {
                let value = request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
                value.unwrap_or_default()
            };
            let (bearer, cluster) = (said("authorization"), said("clusterid"));
            let asked = request.get_ref();
            let metadata = asked.metadata.as_ref();
            let impersonated =
                metadata.and_then(|data| data.fields.get(IMPERSONATED)).map(|text| text.string_value.clone());
            let seconds = asked.validity_duration;
            let csr = CertificateSigningRequestParams::from_pem(&asked.csr).unwrap();
            let names = csr.params.subject_alt_names.iter().map(|name| match name {
                SanType::URI(uri) => uri.as_str().to_owned(),
                other => panic!("{other:?}"),
            });
            let names = names.collect();
            let heard = Heard { bearer, cluster, impersonated, names, seconds, server_name };
            desk.heard.lock().unwrap().push(heard);
            let mood = *desk.mood.lock().unwrap();
            match mood {
                Mood::Hang => std::future::pending().await,
                Mood::Refuse => Err(Status::new(Code::Unauthenticated, "no\u{7}thing of mine")),
                mood => Ok(Response::new(IstioCertificateResponse { cert_chain: desk.chain(mood, csr) })),
            }
        })
    }
}

impl Desk {
    fn chain(&self, mood: Mood, mut csr: CertificateSigningRequestParams) -> Vec<String> {
        let short = matches!(mood, Mood::Short | Mood::TwoRoots | Mood::NewRoot);
        let other = || SanType::URI(OTHER.try_into().unwrap());
        match mood {
            Mood::WrongId => csr.params.subject_alt_names = vec![other()],
            Mood::TwoNames => csr.params.subject_alt_names.push(other()),
            _ => {}
        }
        let [upper, lower] = &self.between;
        let [root, new_root] = [&self.root.pem, &self.new_root.pem].map(String::clone);
        let (upper_pem, lower_pem) = (upper.pem.clone(), lower.pem.clone());
        match mood {
            Mood::Empty => Vec::new(),
            Mood::Garbage => vec!["-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned()],
            Mood::NotDer => {
                let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
                vec![pem, root]
            }
            Mood::Huge => vec!["x".repeat(MESSAGE_BYTES + 1)],
            Mood::TooMany => vec![root.repeat(65)],
            Mood::OtherKey => {
                let mut params = leaf(csr.params, short);
                params.distinguished_name.push(DnType::CommonName, "other key");
                let key = KeyPair::generate().unwrap();
                vec![params.signed_by(&key, &upper.issuer).unwrap().pem(), upper_pem, root]
            }
            Mood::NewRoot => vec![sign(csr, short, &self.new_root), new_root],
            Mood::TwoRoots => vec![sign(csr, short, upper), upper_pem, root + &new_root],
            Mood::LeafOnly => vec![sign(csr, short, upper)],
            Mood::OthersRoot => vec![sign(csr, short, upper), upper_pem, new_root],
            Mood::WithoutIntermediate => vec![sign(csr, short, lower), upper_pem, root],
            Mood::RootFirst => vec![root, upper_pem, sign(csr, short, upper)],
            // As istiod where `cert-chain.pem` is as Istio's `Makefile.selfsigned.mk` makes it.
            Mood::RootTwice => vec![sign(csr, short, upper), upper_pem, root.clone(), root],
            Mood::Unordered => vec![sign(csr, short, lower), upper_pem + &new_root + &lower_pem, root],
            // As istiod with a plugged-in authority: those between in one text.
            _ => vec![sign(csr, short, upper), upper_pem, root],
        }
    }
}

/// A root, or one below `above`.
fn signer(name: &str, above: Option<&Signer>) -> Signer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = match above {
        Some(above) => params.signed_by(&key, &above.issuer),
        None => params.self_signed(&key),
    };
    let certificate = certificate.unwrap();
    Signer {
        certificate: certificate.der().clone(),
        pem: certificate.pem(),
        issuer: Issuer::new(params, key),
    }
}

fn leaf(mut params: CertificateParams, short: bool) -> CertificateParams {
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(if short { 8 } else { 3_600 })).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn sign(csr: CertificateSigningRequestParams, short: bool, by: &Signer) -> String {
    let CertificateSigningRequestParams { params, public_key } = csr;
    let csr = CertificateSigningRequestParams { params: leaf(params, short), public_key };
    csr.signed_by(&by.issuer).unwrap().pem()
}
