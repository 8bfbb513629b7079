//! What the two ends of one client connection tell each other: the bytes' side ([`super::guard`])
//! and the requests' side ([`super::exchange`]).

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::framing::FramingError;

/// Shared by the parts of one connection. All on one task for HTTP/1, so nothing is ever contended.
#[derive(Debug)]
pub(crate) struct Link {
    begun: AtomicU32,
    ended: AtomicU32,
    upgraded: AtomicBool,
    aborted: AtomicBool,
    /// The client stopped reading.
    stalled: AtomicBool,
    /// The next head was refused: answered when the requests before it are.
    head_refused: OnceLock<FramingError>,
    /// The framing of a body broke.
    body_refused: OnceLock<&'static str>,
    /// Of the guard, where a pipelined request waits for its turn.
    next: AtomicWaker,
    drain: Arc<Drain>,
}

impl Link {
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        Self {
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            upgraded: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            head_refused: OnceLock::new(),
            body_refused: OnceLock::new(),
            next: AtomicWaker::new(),
            drain,
        }
    }

    /// A request began.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// A response ended.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.next.wake();
    }

    /// A request waits for the end of the one before it.
    pub(super) fn wake_at_end(&self, waker: &Waker) {
        self.next.register(waker);
    }

    /// Whether a request is under way.
    pub(crate) fn busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    /// How many requests began.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The upgrade was accepted.
    pub(crate) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    pub(crate) fn upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// A response was cut: the connection is reset, so that nobody takes it for whole.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// The client has not read for too long: the connection is reset.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
        self.abort();
    }

    pub(crate) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn refuse_head(&self, error: FramingError) {
        let _ = self.head_refused.set(error);
    }

    pub(super) fn head_refused(&self) -> Option<FramingError> {
        self.head_refused.get().copied()
    }

    pub(super) fn refuse_body(&self, reason: &'static str) {
        let _ = self.body_refused.set(reason);
    }

    pub(crate) fn body_refused(&self) -> Option<&'static str> {
        self.body_refused.get().copied()
    }

    /// What the connection drains with.
    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// Whether the proxy is draining, and since when.
    pub(crate) fn draining(&self) -> Option<Instant> {
        self.drain.since()
    }
}

/// Whether the proxy, or one captured pod, is draining. One writer: [`crate::Proxy`].
#[derive(Debug, Default)]
pub(crate) struct Drain {
    since: OnceLock<Instant>,
    begun: CancellationToken,
    cut: CancellationToken,
    /// Where it is not for the proxy's or the pod's end.
    why: OnceLock<&'static str>,
    /// A pod's: the proxy's, which it follows.
    whole: Option<Arc<Drain>>,
}

impl Drain {
    /// A part that drains by itself, or with the whole.
    pub(crate) fn within(whole: &Arc<Self>) -> Self {
        Self {
            since: OnceLock::new(),
            begun: whole.begun.child_token(),
            cut: whole.cut.child_token(),
            why: OnceLock::new(),
            whole: Some(Arc::clone(whole)),
        }
    }

    /// Draining begins.
    pub(crate) fn begin(&self) {
        let _ = self.since.set(Instant::now());
        self.begun.cancel();
    }

    /// The same, for a reason of this part's own.
    pub(crate) fn begin_because(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.begin();
    }

    /// That reason.
    pub(crate) fn why(&self) -> Option<&'static str> {
        self.why.get().copied()
    }

    pub(crate) fn since(&self) -> Option<Instant> {
        self.since.get().copied().or_else(|| self.whole.as_ref()?.since())
    }

    /// Ends when draining begins.
    pub(crate) fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Ends when what is left is cut.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}
