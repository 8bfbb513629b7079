//! An HTTP/2 connection for gRPC calls.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Code, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
};
use tonic_prost::ProstCodec;

/// The largest head of an answer, its trailers too.
const HEAD_BYTES: u32 = 64 * 1024;
/// What may be under way to us before it was read.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// A silent peer is asked whether it lives. gRPC servers end connections that ask oftener than each five minutes.
const PING_EVERY: Duration = Duration::from_secs(310);
/// How long it may take to say so.
const PING_LIMIT: Duration = Duration::from_secs(20);
/// The longest explanation of the other side's that is told on.
const TOLD_CHARACTERS: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum LinkError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no HTTP/2: {0}")]
    Http(hyper::Error),
    #[error("no {0} within {1:?}")]
    Slow(&'static str, Duration),
    #[error("answered {0:?}: {1}")]
    Status(Code, String),
    #[error("the stream ended")]
    Ended,
}

impl From<Status> for LinkError {
    /// What the other side says is cut and escaped: it goes into logs.
    fn from(status: Status) -> Self {
        let said: String = status.message().escape_debug().take(TOLD_CHARACTERS).collect();
        Self::Status(status.code(), said)
    }
}

/// What a call needs to know.
pub(in super::super) struct Call<M> {
    /// `/package.Service/Method`
    pub(in super::super) path: &'static str,
    pub(in super::super) request: tonic::Request<M>,
    /// The largest message that is taken.
    pub(in super::super) bytes: usize,
    /// For the first message of the answer.
    pub(in super::super) limit: Duration,
}

/// A connection. Dropped with its last clone, its calls end.
#[derive(Clone)]
pub(in super::super) struct Link {
    send: http2::SendRequest<Body>,
    origin: Uri,
    _connection: Arc<AbortOnDropHandle<()>>,
}

impl Link {
    /// To a socket of this machine.
    pub(in super::super) async fn unix(path: &std::path::Path, limit: Duration) -> Result<Self, LinkError> {
        let connect = async {
            let socket = UnixStream::connect(path).await.map_err(LinkError::Connect)?;
            Self::over(socket, Uri::from_static("http://localhost")).await
        };
        timeout(limit, connect).await.map_err(|_| LinkError::Slow("connection", limit))?
    }

    /// To a host and port, by TLS; the server is who `name` says.
    pub(in super::super) async fn tls(
        (host, port): (&str, u16),
        name: &ServerName<'static>,
        config: Arc<ClientConfig>,
        limit: Duration,
    ) -> Result<Self, LinkError> {
        let connect = async {
            let socket = TcpStream::connect((host, port)).await.map_err(LinkError::Connect)?;
            let tls = TlsConnector::from(config).connect(name.clone(), socket).await;
            let origin = format!("https://{}", name.to_str());
            let origin = origin.parse().map_err(|error| LinkError::Connect(io::Error::other(error)))?;
            Self::over(tls.map_err(LinkError::Connect)?, origin).await
        };
        timeout(limit, connect).await.map_err(|_| LinkError::Slow("connection", limit))?
    }

    async fn over<I>(io: I, origin: Uri) -> Result<Self, LinkError>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT);
        let (send, connection) = builder.handshake(TokioIo::new(io)).await.map_err(LinkError::Http)?;
        let connection = tokio::spawn(async move {
            // Its end is told to the calls.
            let _ = connection.await;
        });
        Ok(Self { send, origin, _connection: Arc::new(AbortOnDropHandle::new(connection)) })
    }

    /// Whether no further call can be made.
    pub(in super::super) fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    /// One question, one answer.
    pub(in super::super) async fn ask<M, R>(&self, call: Call<M>) -> Result<R, LinkError>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let limit = call.limit;
        let ask = async {
            let mut grpc = self.grpc(call.bytes).await?;
            let path = PathAndQuery::from_static(call.path);
            let answer = grpc.unary(call.request, path, ProstCodec::<M, R>::default()).await?;
            Ok(answer.into_inner())
        };
        timeout(limit, ask).await.map_err(|_| LinkError::Slow("answer", limit))?
    }

    /// One question, many answers: the first, and the rest.
    pub(in super::super) async fn follow<M, R>(&self, call: Call<M>) -> Result<(R, Streaming<R>), LinkError>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let limit = call.limit;
        let follow = async {
            let mut grpc = self.grpc(call.bytes).await?;
            let path = PathAndQuery::from_static(call.path);
            let answer = grpc.server_streaming(call.request, path, ProstCodec::<M, R>::default()).await?;
            let mut stream = answer.into_inner();
            let first = stream.message().await?.ok_or(LinkError::Ended)?;
            Ok((first, stream))
        };
        timeout(limit, follow).await.map_err(|_| LinkError::Slow("answer", limit))?
    }

    async fn grpc(&self, bytes: usize) -> Result<Grpc<Self>, LinkError> {
        let mut grpc = Grpc::with_origin(self.clone(), self.origin.clone()).max_decoding_message_size(bytes);
        grpc.ready().await.map_err(LinkError::Http)?;
        Ok(grpc)
    }
}

impl GrpcService<Body> for Link {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.send.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}
