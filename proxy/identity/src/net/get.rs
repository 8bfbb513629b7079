//! The GET.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::timeout,
};

use super::{
    Client, Url,
    address::is_refused,
    tls::{self, TrustError},
};

/// Largest response head.
const HEAD_BYTES: usize = 32 * 1024;
/// Longest `ETag` or `Last-Modified` that is sent back.
const VALIDATOR_BYTES: usize = 512;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Sent back in the next request, so that the provider may answer 304 (RFC 9110 section 13).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: Option<HeaderValue>,
    pub(crate) last_modified: Option<HeaderValue>,
}

/// A document as answered.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) body: Bytes,
    pub(crate) validators: Validators,
    /// `Cache-Control: max-age`, in seconds.
    pub(crate) max_age: Option<u64>,
}

/// An answer that can be used.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 304.
    NotModified { max_age: Option<u64> },
    /// 200.
    Document(Document),
}

/// Why there is no answer. Never says what a body said (CVE-2026-41413).
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error("the host cannot be resolved: {0}")]
    Resolve(std::io::Error),
    #[error("the host has no address that may be asked (link-local and metadata addresses may not)")]
    Refused,
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the host is no name for TLS")]
    ServerName,
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    #[error("the request cannot be built")]
    Request,
    #[error("answered with a redirect ({0}), which is never followed")]
    Redirect(u16),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("answered 304 though nothing is held")]
    UnaskedNotModified,
    #[error("answered with a compressed document")]
    Compressed,
    #[error("the document is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the document broke off")]
    Body,
}

/// Ends the connection's task with the request.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Fetches a document. The caller bounds the time of the whole.
    ///
    /// # Errors
    /// [`GetError`].
    pub(crate) async fn get(&self, url: &Url, held: &Validators) -> Result<Answer, GetError> {
        let stream = self.connect(url).await?;
        let request = request(url, held)?;
        let response = if url.secure {
            let stream = self.secure(url, stream).await?;
            self.exchange(stream, request).await?
        } else {
            self.exchange(stream, request).await?
        };
        let conditional = *held != Validators::default();
        answer(response, conditional)
    }

    async fn connect(&self, url: &Url) -> Result<TcpStream, GetError> {
        let mut last = GetError::Refused;
        for address in self.addresses(url).await? {
            match timeout(self.limits.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = GetError::Connect(error),
                Err(_) => last = GetError::ConnectTimeout,
            }
        }
        Err(last)
    }

    /// The addresses that may be asked, in the resolver's order.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, GetError> {
        let found: Vec<SocketAddr> = match self.connect_to {
            Some(address) => vec![address],
            None => tokio::net::lookup_host((url.host.as_str(), url.port))
                .await
                .map_err(GetError::Resolve)?
                .collect(),
        };
        let allowed = found.into_iter().filter(|address| !is_refused(address.ip()));
        Ok(allowed.take(ADDRESSES).collect())
    }

    async fn secure(
        &self,
        url: &Url,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, GetError> {
        let config = match &self.ca_file {
            Some(path) => tls::from_file(path).await?,
            None => Arc::clone(self.system.get_or_try_init(system).await?),
        };
        let name = ServerName::try_from(url.host.clone()).map_err(|_| GetError::ServerName)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(GetError::Tls)
    }

    /// Sends the request and reads the whole answer.
    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Bytes>, GetError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(GetError::Http)?;
        let _driver = Driver(tokio::spawn(connection).abort_handle());
        let response = sender.send_request(request).await.map_err(GetError::Http)?;
        let (head, body) = response.into_parts();
        let body = if head.status == StatusCode::OK {
            collect(body, self.limits.bytes).await?
        } else {
            Bytes::new()
        };
        Ok(Response::from_parts(head, body))
    }
}

/// Reading the system's store is slow and blocks.
async fn system() -> Result<Arc<rustls::ClientConfig>, GetError> {
    let loaded = tokio::task::spawn_blocking(tls::from_system).await;
    loaded.map_err(|error| GetError::Tls(std::io::Error::other(error)))?.map_err(GetError::from)
}

async fn collect(body: Incoming, limit: usize) -> Result<Bytes, GetError> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(GetError::TooLarge(limit)),
        Err(_) => Err(GetError::Body),
    }
}

fn request(url: &Url, held: &Validators) -> Result<Request<Empty<Bytes>>, GetError> {
    let mut request = Request::get(url.target())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, "fhirward")
        .header(header::CONNECTION, "close");
    if let Some(etag) = &held.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(date) = &held.last_modified {
        request = request.header(header::IF_MODIFIED_SINCE, date);
    }
    request.body(Empty::new()).map_err(|_| GetError::Request)
}

fn answer(response: Response<Bytes>, conditional: bool) -> Result<Answer, GetError> {
    let (head, body) = response.into_parts();
    let max_age = max_age(&head.headers);
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if conditional => return Ok(Answer::NotModified { max_age }),
        StatusCode::NOT_MODIFIED => return Err(GetError::UnaskedNotModified),
        status if status.is_redirection() => return Err(GetError::Redirect(status.as_u16())),
        status => return Err(GetError::Status(status.as_u16())),
    }
    let encoding = head.headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(GetError::Compressed);
    }
    let validators = Validators {
        etag: validator(&head.headers, &header::ETAG),
        last_modified: validator(&head.headers, &header::LAST_MODIFIED),
    };
    Ok(Answer::Document(Document { body, validators, max_age }))
}

fn validator(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    headers.get(name).filter(|value| value.len() <= VALIDATOR_BYTES).cloned()
}

/// `max-age` in seconds. Others say nothing of how long; Keycloak's `no-cache` among them.
fn max_age(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(header::CACHE_CONTROL);
    let directives = values.iter().filter_map(|value| value.to_str().ok());
    directives.flat_map(|value| value.split(',')).find_map(|directive| {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok(),
            _ => None,
        }
    })
}
