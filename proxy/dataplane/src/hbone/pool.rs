//! HBONE connections that are kept: one lane for each caller, destination and address.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use http::Request;
use tokio::time::Instant;

use super::{
    Stream,
    client::{Client, Ended, Failed, Lost, Patience, Place, Until},
};
use crate::refusal::{TunnelFault, UpstreamFault};

/// How often a CONNECT that nobody has looked at is sent again.
const ATTEMPTS: usize = 3;
/// Connections of one lane.
const CONNECTIONS: usize = 64;

/// Connections of one caller to one destination. Who opens is one at a time; the others wait for it.
#[derive(Debug)]
pub(crate) struct Lane {
    clients: Mutex<Vec<Kept>>,
    opening: tokio::sync::Mutex<()>,
    /// Why the last opening failed, counted: it failed for all who waited for it.
    failures: AtomicU64,
    failure: Mutex<Option<UpstreamFault>>,
    waiting: AtomicUsize,
    most_waiting: usize,
    patience: Patience,
}

#[derive(Debug)]
struct Kept {
    client: Client,
    /// Without a tunnel, as far as was seen.
    idle_since: Option<Instant>,
}

/// A place on a connection.
struct Share {
    place: Place,
    /// Others used the connection before: the peer may have ended it meanwhile.
    reused: bool,
}

impl Lane {
    pub(crate) fn new(most_waiting: usize, patience: Patience) -> Self {
        Self {
            clients: Mutex::default(),
            opening: tokio::sync::Mutex::new(()),
            failures: AtomicU64::new(0),
            failure: Mutex::default(),
            waiting: AtomicUsize::new(0),
            most_waiting,
            patience,
        }
    }

    /// A tunnel, on a connection that is there or one that `open` makes: its bytes, and what ends it.
    ///
    /// # Errors
    /// [`UpstreamFault`]
    pub(crate) async fn tunnel<F, S>(
        &self,
        request: impl Fn() -> Option<Request<()>>,
        open: impl Fn() -> F,
    ) -> Result<(Stream, Arc<Ended>), UpstreamFault>
    where
        F: Future<Output = Result<(S, (Lost, Until)), UpstreamFault>>,
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        for _ in 0..ATTEMPTS {
            let share = self.share(&open).await?;
            let request = request().ok_or(UpstreamFault::Tunnel(TunnelFault::Protocol))?;
            match share.place.connect(request).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(Failed::Fault(fault)) => return Err(fault.into()),
                Err(Failed::Unseen) if share.reused => {}
                Err(Failed::Unseen) => break,
            }
        }
        Err(TunnelFault::Closed.into())
    }

    async fn share<F, S>(&self, open: &impl Fn() -> F) -> Result<Share, UpstreamFault>
    where
        F: Future<Output = Result<(S, (Lost, Until)), UpstreamFault>>,
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(place) = self.place()? {
            return Ok(Share { place, reused: true });
        }
        let _waiting = Waiting::begin(&self.waiting, self.most_waiting)?;
        let seen = self.failures.load(Ordering::Acquire);
        let _opening = self.opening.lock().await;
        if let Some(place) = self.place()? {
            return Ok(Share { place, reused: true });
        }
        if self.failures.load(Ordering::Acquire) != seen
            && let Some(fault) = *self.failure.lock().unwrap_or_else(PoisonError::into_inner)
        {
            return Err(fault);
        }
        match self.open(open).await {
            Ok(client) => {
                // A peer that takes no stream at all.
                let place = client.place().ok_or(TunnelFault::Protocol)?;
                let kept = Kept { client, idle_since: None };
                self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                Ok(Share { place, reused: false })
            }
            Err(fault) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                self.failures.fetch_add(1, Ordering::Release);
                Err(fault)
            }
        }
    }

    async fn open<F, S>(&self, open: &impl Fn() -> F) -> Result<Client, UpstreamFault>
    where
        F: Future<Output = Result<(S, (Lost, Until)), UpstreamFault>>,
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (io, lost) = open().await?;
        Ok(Client::open(io, lost, self.patience).await?)
    }

    /// A place on a connection that is there.
    fn place(&self) -> Result<Option<Place>, UpstreamFault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain_mut(|kept| kept.client.is_usable());
        for kept in clients.iter_mut() {
            if let Some(place) = kept.client.place() {
                kept.idle_since = None;
                return Ok(Some(place));
            }
        }
        if clients.len() < CONNECTIONS { Ok(None) } else { Err(UpstreamFault::Overflow) }
    }

    /// Ends what was idle for too long. `true`: nothing is left, and nobody waits.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain_mut(|kept| {
            if kept.client.streams() > 0 {
                kept.idle_since = None;
                return kept.client.is_usable();
            }
            let since = *kept.idle_since.get_or_insert(now);
            now.duration_since(since) < self.patience.idle && kept.client.is_usable()
        });
        clients.is_empty() && self.waiting.load(Ordering::Acquire) == 0
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Somebody who waits for a connection.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, most: usize) -> Result<Self, UpstreamFault> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let waiting = Self(count);
        if before < most { Ok(waiting) } else { Err(UpstreamFault::Overflow) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
