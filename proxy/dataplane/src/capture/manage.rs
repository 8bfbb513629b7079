//! Pods come and go: the one writer of the table, and the listeners' keeper.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Change, Pod, PodId,
    arrive::{Direction, take},
    pods::{Held, Pods},
};
use crate::{
    accept::Queue,
    serve::{Decide, Drain, Gauge, House},
};

/// Follows the changes until `stop`. Listeners are served by tasks of `accepting`.
pub(crate) async fn manage<D: Decide>(
    house: Arc<House<D>>,
    pods: Arc<Pods>,
    mut changes: mpsc::Receiver<Change>,
    accepting: TaskTracker,
    stop: CancellationToken,
) {
    let manager = Manager { house, pods, accepting, stop: stop.clone() };
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = stop.cancelled() => return,
        };
        match change {
            Some(Change::Take { pod, inbound, outbound }) => manager.take(pod, inbound, outbound),
            Some(Change::Release { id }) => manager.release(id),
            Some(Change::Gone { id }) => manager.gone(id),
            Some(Change::NodeAddresses(addresses)) => {
                manager.pods.change(|table| table.set_node(addresses));
            }
            // Whoever told us of pods has ended; those that we have are served on.
            None => return stop.cancelled().await,
        }
    }
}

struct Manager<D> {
    house: Arc<House<D>>,
    pods: Arc<Pods>,
    accepting: TaskTracker,
    stop: CancellationToken,
}

impl<D: Decide> Manager<D> {
    fn take(&self, pod: Arc<Pod>, inbound: Vec<TcpListener>, outbound: Vec<TcpListener>) {
        let listeners = inbound.iter().chain(&outbound);
        let listeners: Vec<SocketAddr> = listeners.filter_map(|one| one.local_addr().ok()).collect();
        let (id, name) = (pod.id, pod.name.clone());
        let stop = self.stop.child_token();
        let tls = self.pods.tls(&pod);
        let held = self.pods.change(|table| {
            let before = table.remove(id);
            let drain = before.as_ref().map(|before| Arc::clone(&before.drain));
            let drain = drain.unwrap_or_else(|| Arc::new(Drain::within(&self.house.drain)));
            let connections = before.as_ref().map_or_else(Gauge::new, |before| before.connections.clone());
            let held = Arc::new(Held { pod, drain, tls, connections, stop, listeners });
            table.insert(Arc::clone(&held));
            if let Some(before) = before {
                before.stop.cancel();
            }
            held
        });
        tracing::info!(pod = %id, workload = %name, "pod captured");
        let inbound = inbound.into_iter().map(|listener| (listener, Direction::In));
        let outbound = outbound.into_iter().map(|listener| (listener, Direction::Out));
        for (listener, direction) in inbound.chain(outbound) {
            self.listen(&held, listener, direction);
        }
    }

    fn listen(&self, held: &Arc<Held>, listener: TcpListener, direction: Direction) {
        // Inherited by every connection before its first byte is there.
        if let Err(error) = SockRef::from(&listener).set_out_of_band_inline(true) {
            tracing::warn!(%error, "urgent data will be lost");
        }
        let queue = Queue::new(format!("pod {} {direction:?}", held.pod.id), listener);
        let (house, pods, held) = (Arc::clone(&self.house), Arc::clone(&self.pods), Arc::clone(held));
        self.accepting.spawn(async move {
            let stop = held.stop.clone();
            queue.serve(&stop, |socket, peer| take(&house, &pods, &held, direction, (socket, peer))).await;
        });
    }

    /// The pod's connections drain, within the limit for the proxy's own drain.
    fn release(&self, id: PodId) {
        let Some(held) = self.pods.change(|table| table.remove(id)) else { return };
        held.stop.cancel();
        held.drain.begin();
        self.house.forwarder.forget(id);
        tracing::info!(pod = %id, workload = %held.pod.name, "pod released");
        let limit = Duration::from_millis(self.house.limits.drain_timeout_ms);
        tokio::spawn(async move {
            let cut = held.drain.cut().clone();
            if cut.run_until_cancelled(tokio::time::sleep(limit)).await.is_some() {
                cut.cancel();
            }
        });
    }

    fn gone(&self, id: PodId) {
        let Some(held) = self.pods.change(|table| table.remove(id)) else { return };
        held.stop.cancel();
        held.drain.begin();
        held.drain.cut().cancel();
        self.house.forwarder.forget(id);
        tracing::info!(pod = %id, workload = %held.pod.name, "pod gone");
    }
}
