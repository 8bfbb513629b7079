//! Connections whose client is verified no longer.

use std::{pin::pin, sync::Arc, time::Duration};

use identity::spiffe::Role;
use rustls_pki_types::UnixTime;
use tokio::time::{sleep, timeout};

use super::{Client, WorkloadTls, now};
use crate::serve::Drain;

/// The wall clock may be set: no sleep is longer than this.
const SLEEP_MOST: Duration = Duration::from_secs(30);
/// How long requests under way may go on for a client that is trusted no longer.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is seen whether an upgraded connection has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl WorkloadTls {
    /// Runs a connection to its end. Once its client's certificate has ended it drains: what is under way goes
    /// on, raw bytes and tunnels as requests, since whoever renewed in time would have to be dropped for it.
    /// Once the client is trusted no longer it is cut after a second.
    pub(crate) async fn while_verified(
        &self,
        client: &Client,
        drain: &Arc<Drain>,
        serving: impl Future<Output = ()>,
    ) {
        let mut serving = pin!(serving);
        let mut lost = pin!(self.lost(client, drain));
        tokio::select! {
            () = &mut serving => {}
            why = &mut lost => return self.end(drain, why, serving).await,
        }
        // Upgraded, it lives on in a task of its own, which drains with the same.
        while Arc::strong_count(drain) > 1 {
            tokio::select! {
                why = &mut lost => return self.end(drain, why, std::future::pending()).await,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn end(&self, drain: &Drain, why: &'static str, serving: impl Future<Output = ()>) {
        tracing::debug!(reason = why, "the client is verified no longer");
        self.ended.count(why);
        drain.begin_because(why);
        let mut serving = pin!(serving);
        if timeout(GRACE, &mut serving).await.is_err() {
            drain.cut().cancel();
            // What does not heed the cut is dropped with its socket.
            let _ = timeout(GRACE, serving).await;
        }
    }

    /// Until the client is trusted no longer.
    async fn lost(&self, client: &Client, drain: &Drain) -> &'static str {
        let mut trust = self.trust.clone();
        let mut version = client.version;
        let end = u64::try_from(client.peer.not_after).unwrap_or(0);
        let mut ended = false;
        loop {
            let bundles = Arc::clone(&trust.borrow_and_update());
            if bundles.version() != version
                && let Some((leaf, issuers)) = client.chain.split_first()
                && let Err(error) = bundles.verify(leaf, issuers, Role::Client, in_its_life(end))
            {
                return error.name();
            }
            version = bundles.version();
            drop(bundles);
            let left = end.saturating_add(1).saturating_sub(now().as_secs());
            if left == 0 && !ended {
                ended = true;
                self.ended.count("expired");
                drain.begin();
            }
            let left = if ended { SLEEP_MOST } else { Duration::from_secs(left) };
            // The bundles' keeper ends with the process: then nothing changes any more.
            let changed = async { trust.changed().await.is_err().then(std::future::pending::<()>) };
            tokio::select! {
                () = sleep(left.min(SLEEP_MOST)) => {}
                gone = changed => if let Some(forever) = gone { forever.await },
            }
        }
    }
}

/// When a certificate that was good is looked at again: now, or at its end, after which only trust in it is
/// asked for.
pub(super) fn in_its_life(end: u64) -> UnixTime {
    now().min(UnixTime::since_unix_epoch(Duration::from_secs(end)))
}
