//! The limit: a proxy with no policy at all, as hyper and tokio make it. One thread.
//!
//! HTTP/1.1 and HTTP/2 in, HTTP/1.1 out over kept connections, bodies streamed, hop-by-hop headers
//! taken off as every proxy must (RFC 9110 section 7.6.1). No limits, no time-outs, no log, no metrics.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, hyper::Error>;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bare-proxy LISTEN UPSTREAM".into());
    };
    let (listen, upstream): (SocketAddr, SocketAddr) = (listen.parse()?, upstream.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(serve(listen, upstream)))
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await?;
    let pool = Rc::new(Pool { upstream, idle: RefCell::default() });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Rc::clone(&pool);
        tokio::task::spawn_local(async move {
            // Which protocol it is shows in the first bytes (RFC 9113 section 3.4).
            let mut start = [0; 3];
            let two = matches!(stream.peek(&mut start).await, Ok(3) if &start == b"PRI");
            let service = service_fn(move |request| {
                let pool = Rc::clone(&pool);
                async move { Ok::<_, Infallible>(pool.forward(request).await) }
            });
            let io = TokioIo::new(stream);
            if two {
                let _ = hyper::server::conn::http2::Builder::new(LocalExecutor)
                    .serve_connection(io, service)
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

/// Runs what hyper spawns on the one thread there is.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Idle connections to the upstream.
struct Pool {
    upstream: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

impl Pool {
    async fn forward(self: Rc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        if prepare(&mut request).is_none() {
            return refusal(StatusCode::BAD_REQUEST);
        }
        let Some(mut connection) = self.connection().await else { return refusal(StatusCode::BAD_GATEWAY) };
        match connection.send_request(request).await {
            Ok(mut response) => {
                strip(response.headers_mut());
                tokio::task::spawn_local(self.take_back(connection));
                response.map(BodyExt::boxed)
            }
            Err(_) => refusal(StatusCode::BAD_GATEWAY),
        }
    }

    async fn connection(&self) -> Option<SendRequest<Incoming>> {
        loop {
            let kept = self.idle.borrow_mut().pop();
            match kept {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Some(connection),
                None => break,
            }
        }
        let stream = TcpStream::connect(self.upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Some(sender)
    }

    /// Keeps a connection once the response on it has been read.
    async fn take_back(self: Rc<Self>, mut connection: SendRequest<Incoming>) {
        if connection.ready().await.is_ok() {
            self.idle.borrow_mut().push(connection);
        }
    }
}

/// Makes a request that came in the one that goes out; nothing where it names no host.
fn prepare(request: &mut Request<Incoming>) -> Option<()> {
    if request.version() == Version::HTTP_2 {
        let host = HeaderValue::from_str(request.uri().authority()?.as_str()).ok()?;
        request.headers_mut().insert(HOST, host);
        *request.version_mut() = Version::HTTP_11;
    }
    if request.uri().authority().is_some() {
        let target = request.uri().path_and_query()?.clone();
        *request.uri_mut() = Uri::from(target);
    }
    strip(request.headers_mut());
    Some(())
}

fn strip(headers: &mut hyper::HeaderMap) {
    if let Some(named) = headers.remove(CONNECTION) {
        let names = named.to_str().unwrap_or_default().split(',');
        for name in names.filter_map(|name| name.trim().parse::<HeaderName>().ok()) {
            headers.remove(name);
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    response
}
