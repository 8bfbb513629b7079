//! An identity provider on loopback that answers as it is told, counts, and can be killed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

/// What is answered at a path.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) delay: Duration,
}

impl Reply {
    pub(super) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("SECRET-OF-THE-INSIDE") }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

#[derive(Debug, Default)]
struct Shared {
    replies: Mutex<Vec<(String, Reply)>>,
    hits: Mutex<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let mut provider =
            Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), shared: Arc::default(), server: None };
        provider.revive().await;
        provider
    }

    /// Listens, at the address it had, if it had one.
    pub(super) async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
    }

    pub(super) async fn kill(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn set(&self, path: &str, reply: Reply) {
        let mut replies = self.shared.replies.lock().unwrap();
        replies.retain(|(known, _)| known != path);
        replies.push((path.to_owned(), reply));
    }

    /// Requests for a path so far.
    pub(super) fn hits(&self, path: &str) -> usize {
        self.shared.hits.lock().unwrap().iter().filter(|hit| *hit == path).count()
    }

    /// Makes `issuer` (below this provider's address) discoverable, keys at `/certs`.
    pub(super) fn discoverable(&self, issuer: &str) {
        let document = json!({"issuer": issuer, "jwks_uri": self.url("/certs")});
        let path = issuer.strip_prefix(&self.url("")).unwrap().trim_end_matches('/').to_owned();
        self.set(&format!("{path}/.well-known/openid-configuration"), Reply::ok(document.to_string()));
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    shared.hits.lock().unwrap().push(path.clone());
    let replies = shared.replies.lock().unwrap().clone();
    let reply = replies.into_iter().find(|(known, _)| *known == path);
    let reply = reply.map_or_else(|| Reply::status(404), |(_, reply)| reply);
    tokio::time::sleep(reply.delay).await;
    let etag = reply.headers.iter().find(|(name, _)| *name == "etag").map(|(_, value)| value);
    let asked = request.headers().get("if-none-match").and_then(|value| value.to_str().ok());
    let unchanged = asked.is_some() && asked == etag.map(String::as_str);
    let mut response = Response::builder().status(if unchanged { 304 } else { reply.status });
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    response.body(if unchanged { Body::empty() } else { Body::from(reply.body) }).unwrap()
}
