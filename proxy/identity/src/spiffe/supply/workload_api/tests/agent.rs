//! An agent that says what it is told to.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
};

use certs::{Authority, Leaf, LeafRequest};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use prost::Message;
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tonic::{Request, Response, Status, metadata::MetadataMap, server::ServerStreamingService};
use tonic_prost::ProstCodec;

use super::super::{
    super::remote::{
        messages::{X509Svid, X509SvidRequest, X509SvidResponse},
        testing::serve,
    },
    FETCH,
};

/// What it says to who asks, now.
#[derive(Clone)]
pub(super) enum Says {
    /// Nothing at all: not even that it heard.
    Nothing,
    /// A message, in its bytes.
    This(Vec<u8>),
    Refusal(tonic::Code),
    End,
}

/// Its socket is there while it runs.
pub(super) struct Agent {
    folder: TempDir,
    says: watch::Sender<Says>,
    heard: Arc<Mutex<Vec<MetadataMap>>>,
    running: Option<JoinSet<()>>,
}

impl Agent {
    pub(super) fn start(says: Says) -> Self {
        let mut agent = Self::absent(says);
        agent.run();
        agent
    }

    /// One that is not there yet.
    pub(super) fn absent(says: Says) -> Self {
        let (says, _) = watch::channel(says);
        Self { folder: tempfile::tempdir().unwrap(), says, heard: Arc::default(), running: None }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(super) fn says(&self, says: Says) {
        self.says.send_replace(says);
    }

    /// What the calls so far had with them.
    pub(super) fn heard(&self) -> Vec<MetadataMap> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn run(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let (says, heard) = (self.says.clone(), Arc::clone(&self.heard));
        let answer = Arc::new(move |request: http::Request<_>| {
            let service = Fetch { says: says.subscribe(), heard: Arc::clone(&heard) };
            async move {
                assert_eq!(request.uri().path(), FETCH);
                let codec = ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
                let mut grpc = tonic::server::Grpc::new(codec);
                grpc.server_streaming(service, request).await
            }
        });
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&answer)));
            }
        });
        self.running = Some(running);
    }

    /// Ends it with all connections; its socket goes too.
    pub(super) async fn die(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
        std::fs::remove_file(self.socket()).unwrap();
    }
}

struct Fetch {
    says: watch::Receiver<Says>,
    heard: Arc<Mutex<Vec<MetadataMap>>>,
}

impl ServerStreamingService<X509SvidRequest> for Fetch {
    type Response = X509SvidResponse;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        self.heard.lock().unwrap().push(request.metadata().clone());
        let mut says = self.says.clone();
        says.mark_changed();
        let answers = stream::unfold(says, async |mut says| {
            loop {
                says.changed().await.ok()?;
                let now = says.borrow_and_update().clone();
                match now {
                    Says::Nothing => {}
                    Says::This(bytes) => {
                        return Some((Ok(X509SvidResponse::decode(bytes.as_slice()).unwrap()), says));
                    }
                    Says::Refusal(code) => return Some((Err(Status::new(code, "as told\n")), says)),
                    Says::End => return None,
                }
            }
        });
        Box::pin(std::future::ready(Ok(Response::new(answers.boxed() as Self::ResponseStream))))
    }
}

/// A message that is right, to be made wrong.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) svids: Vec<X509Svid>,
    pub(super) crl: Vec<Vec<u8>>,
    pub(super) federated: BTreeMap<String, Vec<u8>>,
}

impl Answer {
    pub(super) fn with(mut self, svid: X509Svid) -> Self {
        self.svids.push(svid);
        self
    }

    pub(super) fn federated(mut self, domain: &str, roots: &[&Authority]) -> Self {
        self.federated.insert(domain.to_owned(), bundle(roots));
        self
    }

    pub(super) fn says(self) -> Says {
        let said = X509SvidResponse { svids: self.svids, crl: self.crl, federated_bundles: self.federated };
        Says::This(said.encode_to_vec())
    }
}

pub(super) fn bundle(roots: &[&Authority]) -> Vec<u8> {
    roots.iter().flat_map(|root| root.certificate_der().to_vec()).collect()
}

/// As an agent packs it.
pub(super) fn packed(id: &str, leaf: &Leaf, roots: &[&Authority]) -> X509Svid {
    X509Svid {
        spiffe_id: id.to_owned(),
        x509_svid: leaf.chain_der().iter().flat_map(|one| one.to_vec()).collect(),
        x509_svid_key: leaf.key_der().secret_der().to_vec(),
        bundle: bundle(roots),
    }
}

/// Of this root, for this workload.
pub(super) fn svid(id: &str, root: &Authority) -> X509Svid {
    packed(id, &root.issue(&LeafRequest::for_workload(id)).unwrap(), &[root])
}
