//! A bounded load over the mesh's mTLS: connections that stay, and connections that are new each time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use identity::spiffe::{Bundle, PeerVerifier, TrustBundles, parse_id};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// No load runs longer than this, whatever happens to its test.
const LONGEST: Duration = Duration::from_secs(600);
/// For one request, its connection too.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two requests of one worker.
const PAUSE: Duration = Duration::from_millis(25);
/// Connections of each kind.
const WORKERS: usize = 2;

/// Who the clients are, and by which roots (PEM) they verify the server; asked for with each connection.
pub struct MeshClient {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's.
    pub key: PrivateKeyDer<'static>,
    /// Of `cluster.local`.
    pub roots: Vec<u8>,
}

/// A running load of `GET /metadata`.
pub struct MeshLoad {
    stop: Arc<AtomicBool>,
    /// Requests answered 200: on connections that stay, on new ones.
    served: [Arc<AtomicU64>; 2],
    workers: JoinSet<Result<(), String>>,
}

impl MeshLoad {
    /// Starts it against the workload `server` (a SPIFFE id) at `address`.
    pub fn start<F>(address: SocketAddr, server: &'static str, client: F) -> Self
    where
        F: Fn() -> MeshClient + Send + Sync + 'static,
    {
        let (stop, client) = (Arc::<AtomicBool>::default(), Arc::new(client));
        let served: [Arc<AtomicU64>; 2] = Default::default();
        let mut workers = JoinSet::new();
        for (fresh, served) in [false, true].into_iter().zip(&served) {
            for _ in 0..WORKERS {
                let (stop, served, client) = (Arc::clone(&stop), Arc::clone(served), Arc::clone(&client));
                workers.spawn(async move {
                    let (began, mut kept) = (Instant::now(), None);
                    while !stop.load(Ordering::Relaxed) && began.elapsed() < LONGEST {
                        let ask = ask(&mut kept, address, server, &*client);
                        timeout(LIMIT, ask).await.map_err(|_| format!("no answer within {LIMIT:?}"))??;
                        served.fetch_add(1, Ordering::Relaxed);
                        if fresh {
                            kept = None;
                        }
                        sleep(PAUSE).await;
                    }
                    Ok(())
                });
            }
        }
        Self { stop, served, workers }
    }

    /// Requests answered 200 so far: on the connections that stay, on new ones.
    #[must_use]
    pub fn served(&self) -> [u64; 2] {
        self.served.each_ref().map(|served| served.load(Ordering::Relaxed))
    }

    /// Whether no request has failed so far.
    ///
    /// # Errors
    /// The first that did; its worker has ended with it.
    pub fn check(&mut self) -> Result<(), String> {
        while let Some(ended) = self.workers.try_join_next() {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    /// Ends it; gives the requests answered.
    ///
    /// # Errors
    /// The first request that failed: an answer other than 200, a connection that ended or was refused.
    pub async fn finish(mut self) -> Result<[u64; 2], String> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.map_err(|error| error.to_string())??;
        }
        Ok(self.served())
    }
}

type Io = BufReader<TlsStream<TcpStream>>;

async fn ask(
    kept: &mut Option<Io>,
    address: SocketAddr,
    server: &str,
    client: &impl Fn() -> MeshClient,
) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let io = match kept {
        Some(io) => io,
        None => kept.insert(connect(address, server, client()).await.map_err(failed("connecting"))?),
    };
    let request = b"GET /metadata HTTP/1.1\r\nhost: fhir.example\r\n\r\n";
    io.write_all(request).await.map_err(failed("asking"))?;
    answer(io).await.map_err(failed("reading"))
}

async fn connect(address: SocketAddr, server: &str, client: MeshClient) -> std::io::Result<Io> {
    let wrong = std::io::Error::other::<String>;
    let bundle = Bundle::from_pem(&client.roots).map_err(|error| wrong(error.to_string()))?;
    let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle);
    let bundles = bundles.map_err(|error| wrong(error.to_string()))?;
    let server = parse_id(server).map_err(|error| wrong(error.to_string()))?;
    let verifier = PeerVerifier::exactly(Arc::new(bundles), server);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| wrong(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let config = config.with_client_auth_cert(client.chain, client.key);
    let mut config = config.map_err(|error| wrong(error.to_string()))?;
    config.alpn_protocols = vec![b"istio-http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("fhir.example").map_err(|error| wrong(error.to_string()))?;
    Ok(BufReader::new(TlsConnector::from(Arc::new(config)).connect(name, socket).await?))
}

async fn answer(io: &mut Io) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.ok_or_else(|| std::io::Error::other(format!("no length: {head}")))?;
    io.read_exact(&mut vec![0; length]).await?;
    if head.starts_with("http/1.1 200 ") { Ok(()) } else { Err(std::io::Error::other(head)) }
}
