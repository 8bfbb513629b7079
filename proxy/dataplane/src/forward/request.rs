//! A permitted request in the form of the upstream's protocol.

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body;

use super::body::{ClientBody, UpstreamRequestBody};
use crate::{Refusal, authorize::Permitted};

/// Ready to be sent, and perhaps to be sent again.
#[derive(Debug)]
pub(super) struct Outbound {
    next: Option<Request<UpstreamRequestBody>>,
    /// To send a bodiless request again. Made only where that may be needed.
    copy: Option<(Method, Uri, HeaderMap)>,
    version: Version,
    has_body: bool,
    pub(super) upgrade: Option<String>,
}

impl Outbound {
    /// Takes what is to be sent out of a permitted request.
    pub(super) fn new(permitted: &mut Permitted, body: Option<ClientBody>) -> Result<Self, Refusal> {
        let as_client = permitted.inside.as_ref().and_then(|passage| passage.http2);
        let version = if as_client.unwrap_or_else(|| speaks_http2(permitted)) {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let mut headers = std::mem::take(&mut permitted.headers);
        let upgrade = permitted.upgrade.take();
        let uri = if version == Version::HTTP_2 {
            headers.remove(header::HOST);
            absolute(permitted)?
        } else {
            hops(&mut headers, upgrade.as_deref(), body.as_ref())?;
            say_there_is_no_body(&mut headers, &permitted.method, body.is_some() || upgrade.is_some());
            Uri::from(path(permitted)?)
        };
        let has_body = body.is_some();
        let body =
            body.map_or(UpstreamRequestBody::Empty, |body| UpstreamRequestBody::Client(Box::new(body)));
        let mut request = Request::new(body);
        *request.method_mut() = permitted.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.version_mut() = version;
        Ok(Self { next: Some(request), copy: None, version, has_body, upgrade })
    }

    pub(super) fn http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Whether the method may be repeated without a second effect (RFC 9110 §9.2.2) and there is no
    /// body to lose.
    pub(super) fn repeatable(&self) -> bool {
        let method = self.next.as_ref().map(Request::method);
        !self.has_body && method.is_some_and(Method::is_idempotent)
    }

    /// Keeps what a second attempt needs.
    pub(super) fn keep_copy(&mut self, wanted: bool) {
        if let (true, false, None, Some(next)) = (wanted, self.has_body, &self.copy, &self.next) {
            let parts = (next.method().clone(), next.uri().clone(), next.headers().clone());
            self.copy = Some(parts);
        }
    }

    /// The request, once per attempt.
    pub(super) fn take(&mut self) -> Option<Request<UpstreamRequestBody>> {
        self.next.take().or_else(|| {
            let (method, uri, headers) = self.copy.as_ref()?;
            let mut request = Request::new(UpstreamRequestBody::Empty);
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            *request.version_mut() = self.version;
            Some(request)
        })
    }

    /// It was not sent at all.
    pub(super) fn give_back(&mut self, request: Request<UpstreamRequestBody>) {
        let untouched = match request.body() {
            UpstreamRequestBody::Empty => true,
            UpstreamRequestBody::Client(body) => !body.flow().begun(),
        };
        if untouched {
            self.next = Some(request);
        }
    }

    pub(super) fn can_be_sent_again(&self) -> bool {
        self.next.is_some() || self.copy.is_some()
    }
}

/// Whether the upstream is spoken to in HTTP/2 (by prior knowledge): gRPC knows nothing else, and a
/// port may say so by its name (Istio's protocol selection: `http2`, `grpc`, with any suffix; `h2c`
/// as Kubernetes' `appProtocol` has it).
fn speaks_http2(permitted: &Permitted) -> bool {
    let named = |name: &str| {
        let protocol = name.split('-').next().unwrap_or(name);
        matches!(protocol, "http2" | "grpc" | "h2c")
    };
    permitted.upstream_http2()
        || permitted.workload.as_ref().is_some_and(|workload| {
            let mut ports = workload.ports.iter();
            ports.any(|(name, port)| named(name) && workload.upstream(*port) == permitted.upstream)
        })
}

/// The target was judged as it is; a target that cannot be written is a bug of ours.
fn path(permitted: &Permitted) -> Result<PathAndQuery, Refusal> {
    PathAndQuery::try_from(permitted.target.as_str())
        .map_err(|_| Refusal::Internal("the canonical target cannot be sent"))
}

fn absolute(permitted: &Permitted) -> Result<Uri, Refusal> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Authority::try_from(permitted.authority.as_str()).ok();
    parts.path_and_query = Some(path(permitted)?);
    Uri::from_parts(parts).map_err(|_| Refusal::Internal("the authority cannot be sent"))
}

/// A method that could have a body and has none says so, as some servers answer 411 else (RFC 9110 §8.6; the
/// methods are those for which Envoy 1.40 does).
fn say_there_is_no_body(headers: &mut HeaderMap, method: &Method, body: bool) {
    let bodiless =
        matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT);
    if !bodiless && !body && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Our own hop-by-hop headers for HTTP/1.1.
fn hops(headers: &mut HeaderMap, upgrade: Option<&str>, body: Option<&ClientBody>) -> Result<(), Refusal> {
    match upgrade {
        Some(protocol) => {
            let value = HeaderValue::from_str(protocol)
                .map_err(|_| Refusal::Internal("the upgrade cannot be sent"))?;
            headers.insert(header::UPGRADE, value);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        None if headers.contains_key(header::TE) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        None => {}
    }
    // A body of unknown length is chunked whatever the method; GET's too, or it would be lost.
    if body.is_some_and(|body| body.size_hint().exact().is_none()) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}
