//! **Permitted only** -> upstream response. The only room that opens upstream connections
//! (invariant 1).
//!
//! | part | does |
//! |---|---|
//! | [`pool`] | connections to one address |
//! | [`upstream`] | one connection, for as long as it may be used |
//! | [`inside`], [`rooms`] | connections inside pods, and their pools |
//! | [`outward`] | ways with the caller's identity: HBONE, sidecars' mTLS |
//! | [`attempt`] | one request on one connection |
//! | [`retry`] | when another attempt follows |
//! | [`lease`] | holds the connection until the response's end |
//! | [`tunnel`] | bytes after an accepted upgrade |
//! | [`raw`] | bytes of a raw TCP connection |

mod attempt;
mod body;
mod inside;
mod lease;
mod outward;
mod pool;
mod raw;
mod request;
mod retry;
mod rooms;
mod tunnel;
mod upstream;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    Limits, Refusal,
    authorize::Permitted,
    capture::PodId,
    dice::Dice,
    refusal::{TunnelFault, UpstreamFault},
};

pub(crate) use body::{BodyFault, ClientBody, Flow, remove_forbidden_trailers};
pub(crate) use inside::{Door, Inside, Kernel, Passage, leave, prepare};
pub(crate) use lease::Lease;
pub(crate) use outward::{ALPN_BYTES, ALPN_HTTP1, ALPN_HTTP2, Departure, Hints, Origin, Reached};
pub(crate) use raw::{Carried, Counts, End, carry};
pub(crate) use tunnel::tunnel;
pub(crate) use upstream::Upstream;

use attempt::Failure;
use outward::Outwards;
use pool::{Pool, Reach};
use request::Outbound;
use rooms::Rooms;

/// Upstreams, each with its pool.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pools: ArcSwap<HashMap<SocketAddr, Arc<Pool>, ahash::RandomState>>,
    /// Of connections inside pods.
    rooms: Rooms,
    /// Of those with callers' identities.
    outwards: Outwards,
    limits: Arc<Limits>,
    dice: Dice,
    own: OnceLock<Vec<SocketAddr>>,
}

/// What came back from upstream.
#[derive(Debug)]
pub(crate) enum Answered {
    /// A response; its body is read by way of the lease.
    Response {
        response: Response<Incoming>,
        lease: Lease,
        /// The whole exchange must end by then.
        deadline: Option<Instant>,
    },
    /// 101: the connection, and what came behind the head.
    Upgraded { head: http::response::Parts, upstream: Upstream, first: bytes::Bytes },
}

/// The clock of an exchange: the route's `timeout` until the response's end, or the limit on the
/// wait for its head. It starts when the request is out (as Envoy's): while its body moves, time
/// does not count.
#[derive(Debug, Clone, Copy)]
struct Clock {
    limit: Duration,
    deadline: Instant,
    /// The response must have ended by then, not only begun.
    whole: bool,
    /// The end of this attempt, where the route limits each.
    attempt: Option<Instant>,
}

impl Clock {
    fn start(limit: Duration, whole: bool) -> Self {
        Self { limit, deadline: Instant::now() + limit, whole, attempt: None }
    }

    /// The request's body has moved.
    fn restart(&mut self) {
        self.deadline = Instant::now() + self.limit;
    }

    /// When the response's head must be there.
    fn head(&self) -> Instant {
        self.attempt.map_or(self.deadline, |attempt| attempt.min(self.deadline))
    }

    /// When the response must have ended.
    fn end(&self) -> Option<Instant> {
        self.whole.then_some(self.deadline)
    }
}

impl Forwarder {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self {
            pools: ArcSwap::default(),
            rooms: Rooms::new(),
            outwards: Outwards::new(Arc::clone(&limits)),
            limits,
            dice: Dice::new(),
            own: OnceLock::new(),
        }
    }

    /// Sends a permitted request, again where the route and safety allow it.
    ///
    /// # Errors
    /// [`Refusal::Upstream`], or what ended the request's own body ([`Refusal::Limit`],
    /// [`Refusal::Malformed`]).
    pub(crate) async fn forward(
        &self,
        permitted: &mut Permitted,
        body: Option<ClientBody>,
    ) -> Result<Answered, Refusal> {
        let pool = match &permitted.inside {
            Some(passage) => passage.door.pool(&self.rooms, &self.limits),
            None if let Some(departure) = &permitted.departure => {
                self.check_loop(departure)?;
                self.outwards.pool(departure).await?
            }
            None if self.is_own(permitted.upstream) => {
                return Err(Refusal::Internal("the upstream is this proxy"));
            }
            None => self.pool(permitted.upstream),
        };
        let mut clock = self.clock(permitted);
        let flow = body.as_ref().map(|body| Arc::clone(body.flow()));
        let retries = permitted.retries.take();
        let mut outbound = Outbound::new(permitted, body)?;
        let mut made = 0;
        loop {
            let tried = attempt(&pool, &mut outbound, &mut clock, retries.as_ref()).await;
            let another = match &tried {
                Ok(answered) => retry::after_response(answered, retries.as_ref(), made),
                Err(failure) => retry::after_failure(failure, retries.as_ref(), made),
            };
            let in_time = Instant::now() < clock.deadline;
            if let Some(retry) = another.filter(|_| in_time && outbound.can_be_sent_again()) {
                if retry == retry::Retry::Backoff {
                    made += 1;
                    retry::back_off(made, &self.dice, clock.deadline).await;
                }
                continue;
            }
            return match tried {
                Ok(answered) => Ok(answered),
                Err(failure) => Err(why(failure.fault, flow.as_deref())),
            };
        }
    }

    fn clock(&self, permitted: &Permitted) -> Clock {
        match permitted.timeout {
            Some(limit) => Clock::start(limit, true),
            None => Clock::start(Duration::from_millis(self.limits.response_timeout_ms), false),
        }
    }

    /// Where the proxy itself listens: requests sent there would come round for ever.
    pub(crate) fn set_own(&self, addresses: Vec<SocketAddr>) {
        let _ = self.own.set(addresses);
    }

    /// Goes with the caller's identity, for one connection. `alpn` is what a sidecar is told of the bytes.
    ///
    /// # Errors
    /// [`UpstreamFault`]
    pub(crate) async fn reach(
        &self,
        departure: &Departure,
        alpn: &[&[u8]],
    ) -> Result<Reached, UpstreamFault> {
        self.check_loop(departure)?;
        self.outwards.reach(departure, alpn).await
    }

    /// Connects to the application for permitted raw bytes: by the door, where it is captured here.
    ///
    /// # Errors
    /// [`UpstreamFault`]
    pub(crate) async fn connect(
        &self,
        permitted: &crate::authorize::PermittedTcp,
        door: Option<&Door>,
    ) -> Result<tokio::net::TcpStream, UpstreamFault> {
        let limit = Duration::from_millis(self.limits.connect_timeout_ms);
        match door {
            Some(door) => door.connect(limit).await,
            // It would come round for ever.
            None if self.is_own(permitted.upstream()) => Err(TunnelFault::Loop.into()),
            None => inside::straight(permitted.upstream(), limit).await,
        }
    }

    /// A tunnel to ourselves would come round for ever.
    fn check_loop(&self, departure: &Departure) -> Result<(), UpstreamFault> {
        if self.is_own(departure.at()) { Err(TunnelFault::Loop.into()) } else { Ok(()) }
    }

    fn is_own(&self, upstream: SocketAddr) -> bool {
        let own = self.own.get().map(Vec::as_slice).unwrap_or_default();
        own.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && upstream.ip().is_loopback();
            own.port() == upstream.port() && (own.ip() == upstream.ip() || everywhere)
        })
    }

    fn pool(&self, address: SocketAddr) -> Arc<Pool> {
        if let Some(pool) = self.pools.load().get(&address) {
            return Arc::clone(pool);
        }
        let fresh = Arc::new(Pool::new(address, Reach::Direct, Arc::clone(&self.limits)));
        self.pools.rcu(|pools| {
            let mut pools = HashMap::clone(pools);
            pools.entry(address).or_insert_with(|| Arc::clone(&fresh));
            pools
        });
        self.pools.load().get(&address).map_or(fresh, Arc::clone)
    }

    /// Forgets a pod that is no longer ours.
    pub(crate) fn forget(&self, pod: PodId) {
        self.rooms.forget(pod);
        self.outwards.forget(pod);
    }

    /// Closes idle connections and forgets upstreams without any. Called each second.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.rooms.sweep(now);
        self.outwards.sweep(now);
        let empty: Vec<SocketAddr> = self
            .pools
            .load()
            .iter()
            .filter(|(_, pool)| pool.sweep(now) && Arc::strong_count(pool) == 1)
            .map(|(address, _)| *address)
            .collect();
        if !empty.is_empty() {
            self.pools.rcu(|pools| {
                let mut pools = HashMap::clone(pools);
                pools.retain(|address, _| !empty.contains(address));
                pools
            });
        }
    }
}

async fn attempt(
    pool: &Arc<Pool>,
    outbound: &mut Outbound,
    clock: &mut Clock,
    retries: Option<&mesh::routing::RetryPolicy>,
) -> Result<Answered, Failure> {
    let per_try = retries.and_then(|retries| retries.per_try_timeout);
    clock.attempt = per_try.map(|limit| Instant::now() + limit);
    outbound.keep_copy(retries.is_some_and(|retries| retries.attempts > 0));
    attempt::attempt(pool, outbound, clock).await
}

/// A request body that broke explains the exchange's end; otherwise the upstream does.
fn why(fault: UpstreamFault, flow: Option<&Flow>) -> Refusal {
    match flow.and_then(Flow::fault) {
        Some(fault) => fault.into(),
        None => Refusal::Upstream(fault),
    }
}

/// Whether a response may go on: framing that servers could read differently is refused
/// (RFC 9112 §6.1, §6.3), and so is an upgrade that nobody asked for.
fn check(response: &Response<Incoming>, upgrade: Option<&str>) -> Result<(), UpstreamFault> {
    let headers = response.headers();
    let encodings = headers.get_all(http::header::TRANSFER_ENCODING);
    let mut encodings = encodings.iter();
    if let Some(encoding) = encodings.next() {
        let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let length = headers.contains_key(http::header::CONTENT_LENGTH);
        if !chunked || length || encodings.next().is_some() {
            return Err(UpstreamFault::Protocol);
        }
    }
    let mut lengths = headers.get_all(http::header::CONTENT_LENGTH).iter();
    if lengths.next().is_some() && lengths.next().is_some() {
        return Err(UpstreamFault::Protocol);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let offered = headers.get(http::header::UPGRADE).map(http::HeaderValue::as_bytes);
        let agreed = upgrade
            .zip(offered)
            .is_some_and(|(asked, offered)| asked.as_bytes().eq_ignore_ascii_case(offered));
        return if agreed { Ok(()) } else { Err(UpstreamFault::Protocol) };
    }
    if response.status().is_informational() {
        return Err(UpstreamFault::Protocol);
    }
    Ok(())
}
