//! Connections whose client is verified no longer.

use std::{pin::pin, sync::Arc, time::Duration};

use identity::spiffe::Role;
use tokio::time::{sleep, timeout};

use super::{Client, WorkloadTls, now};
use crate::serve::Drain;

/// The wall clock may be set: no sleep is longer than this.
pub(super) const SLEEP_MOST: Duration = Duration::from_secs(30);
/// How long requests under way may go on for a client that is trusted no longer.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is seen whether an upgraded connection has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a client is verified no longer, and how long its requests under way may take.
struct Lost {
    reason: &'static str,
    grace: Duration,
}

impl WorkloadTls {
    /// Runs a connection to its end, or drains it once its client is verified no longer. A certificate's
    /// end leaves requests under way the time of a drain; distrust, a second.
    pub(crate) async fn while_verified(
        &self,
        client: &Client,
        drain: &Arc<Drain>,
        patience: Duration,
        serving: impl Future<Output = ()>,
    ) {
        let mut serving = pin!(serving);
        let mut lost = pin!(self.lost(client, patience));
        tokio::select! {
            () = &mut serving => {}
            lost = &mut lost => return self.end(drain, &lost, serving).await,
        }
        // Upgraded, it lives on in a task of its own, which drains with the same.
        while Arc::strong_count(drain) > 1 {
            tokio::select! {
                lost = &mut lost => return self.end(drain, &lost, std::future::pending()).await,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn end(&self, drain: &Drain, lost: &Lost, serving: impl Future<Output = ()>) {
        tracing::debug!(reason = lost.reason, "the client is verified no longer");
        self.ended.count(lost.reason);
        drain.begin_because(lost.reason);
        let mut serving = pin!(serving);
        if timeout(lost.grace, &mut serving).await.is_err() {
            drain.cut().cancel();
            // What does not heed the cut is dropped with its socket.
            let _ = timeout(GRACE, serving).await;
        }
    }

    async fn lost(&self, client: &Client, patience: Duration) -> Lost {
        let mut trust = self.trust.clone();
        let mut version = client.version;
        let end = u64::try_from(client.peer.not_after).unwrap_or(0);
        loop {
            let bundles = Arc::clone(&trust.borrow_and_update());
            if bundles.version() != version
                && let Some((leaf, issuers)) = client.chain.split_first()
                && let Err(error) = bundles.verify(leaf, issuers, Role::Client, now())
            {
                return Lost { reason: error.name(), grace: GRACE };
            }
            version = bundles.version();
            drop(bundles);
            let left = end.saturating_add(1).saturating_sub(now().as_secs());
            if left == 0 {
                return Lost { reason: "expired", grace: patience };
            }
            let pause = sleep(Duration::from_secs(left).min(SLEEP_MOST));
            // The bundles' keeper ends with the process: then nothing changes any more.
            let changed = async { trust.changed().await.is_err().then(std::future::pending::<()>) };
            tokio::select! {
                () = pause => {}
                ended = changed => if let Some(forever) = ended { forever.await },
            }
        }
    }
}
