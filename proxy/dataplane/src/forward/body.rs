//! The body of a request on its way upstream: counted, limited, timed, never buffered.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh::Workload;
use policy::istio::TokenPlace;
use tokio::time::{Instant, Sleep};

#[cfg(test)]
mod tests;

use crate::{
    Limits, Refusal,
    limits::Exceeded,
    serve::{Link, Messages, head::is_token, poll_deadline},
};

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the request body is too large")]
    TooLarge,
    #[error("the request body took too long")]
    Idle,
    #[error("malformed request body: {0}")]
    Malformed(&'static str),
    #[error("the client is gone")]
    Gone,
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Self::Limit(Exceeded::RequestBodyBytes),
            BodyFault::Idle => Self::Limit(Exceeded::BodyIdleTimeout),
            BodyFault::Malformed(reason) => Self::Malformed(reason),
            BodyFault::Gone => Self::Malformed("the request body ended early"),
        }
    }
}

/// What is known of a request body while others carry it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    bytes: AtomicU64,
    messages: AtomicU64,
    begun: AtomicBool,
    ended: AtomicBool,
    fault: OnceLock<BodyFault>,
}

impl Flow {
    /// Whether the client went away before the body's end.
    pub(crate) fn client_gone(&self) -> bool {
        self.fault.get() == Some(&BodyFault::Gone)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Whether any of it was taken: then it cannot be sent again.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether all of it was taken.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.fault.get().copied()
    }
}

/// A request's body as the client sends it.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Incoming,
    workload: Option<Arc<Workload>>,
    flow: Arc<Flow>,
    link: Arc<Link>,
    limit: u64,
    idle: Duration,
    waiting: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    messages: Option<Messages>,
}

impl ClientBody {
    /// `workload` is the one it is for, if it is in the mesh: headers that its token rules set may
    /// not come behind a body either.
    pub(crate) fn new(
        incoming: Incoming,
        link: Arc<Link>,
        limits: &Limits,
        grpc: bool,
        workload: Option<Arc<Workload>>,
    ) -> Self {
        Self {
            incoming,
            workload,
            flow: Arc::default(),
            link,
            limit: limits.request_body_bytes,
            idle: Duration::from_millis(limits.body_idle_timeout_ms),
            waiting: None,
            sleep: None,
            messages: grpc.then(Messages::default),
        }
    }

    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let _ = self.flow.fault.set(fault);
        Poll::Ready(Some(Err(fault)))
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.waiting = None;
        let frame = match frame.into_data() {
            Ok(data) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                let before = self.flow.bytes.fetch_add(length, Ordering::Relaxed);
                if before.saturating_add(length) > self.limit {
                    return self.fail(BodyFault::TooLarge);
                }
                if let Some(messages) = &mut self.messages {
                    self.flow.messages.store(messages.count(&data), Ordering::Relaxed);
                }
                if self.incoming.is_end_stream() {
                    self.flow.ended.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            Err(frame) => frame,
        };
        match frame.into_trailers() {
            Ok(mut trailers) => {
                self.flow.ended.store(true, Ordering::Relaxed);
                remove_forbidden_trailers(&mut trailers);
                if let Some(workload) = &self.workload {
                    remove_claim_trailers(&mut trailers, workload);
                }
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        this.flow.begun.store(true, Ordering::Relaxed);
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => this.pass(frame),
            Poll::Ready(Some(Err(_))) => {
                let fault = this.link.body_refused().map_or(BodyFault::Gone, BodyFault::Malformed);
                this.fail(fault)
            }
            Poll::Ready(None) => {
                this.flow.ended.store(true, Ordering::Relaxed);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let since = *this.waiting.get_or_insert_with(Instant::now);
                match poll_deadline(&mut this.sleep, since + this.idle, cx) {
                    Poll::Ready(()) => this.fail(BodyFault::Idle),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Trailers that would say where a message ends, where it goes or who sent it (RFC 9110 §6.5.1):
/// nobody judged them, so nobody upstream may merge them into the head. And those whose names HTTP/1
/// cannot write.
pub(crate) fn remove_forbidden_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 14] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::EXPECT,
    ];
    for name in FORBIDDEN {
        trailers.remove(name);
    }
    const PREFIXES: [&str; 4] = ["x-forwarded", "x-envoy-", "x-http-method", "x-method-"];
    const OTHERS: [&str; 4] = ["forwarded", "x-request-id", "x-original-url", "x-rewrite-url"];
    let told: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            let token = is_token(name);
            let name = name.as_str();
            !token || OTHERS.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
        .cloned()
        .collect();
    for name in told {
        trailers.remove(name);
    }
}

/// Trailers by the names of headers that carry verified claims: an upstream that merges trailers
/// into the head would take a caller's word for them.
fn remove_claim_trailers(trailers: &mut HeaderMap, workload: &Workload) {
    for rule in workload.policy.jwt_rules() {
        let claims = rule.output_claim_to_headers.iter().map(|(name, _)| name);
        let places = rule.places.iter().filter_map(|place| match place {
            TokenPlace::Header { name, .. } => Some(name),
            TokenPlace::Parameter(_) | TokenPlace::Cookie(_) => None,
        });
        for name in claims.chain(&rule.output_payload_to_header).chain(places) {
            trailers.remove(name);
        }
    }
}

/// What goes upstream behind a head.
#[derive(Debug)]
pub(crate) enum UpstreamRequestBody {
    /// Nothing.
    Empty,
    /// The client's.
    Client(Box<ClientBody>),
}

impl Body for UpstreamRequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
        }
    }
}
