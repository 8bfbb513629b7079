//! The captured pods that this proxy serves, each with its stocks.

use std::{collections::HashMap, io, net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use arc_swap::ArcSwap;
use dataplane::capture::{Plumbing, Pod, PodId, SocketFuture, Use};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    memory::Recall,
    stock::{Depot, Empty, Stock, Wish},
    tally::{SocketTally, Tallies},
};
use crate::agent::protocol::{PodInfo, PodKey, SocketKind};

/// One captured pod.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) info: PodInfo,
    pub(super) pod: Arc<Pod>,
    /// In the order of `SocketKind::ALL`.
    stocks: [Stock; 6],
    /// Ends what serves the pod's DNS sockets.
    pub(super) over: CancellationToken,
}

/// All captured pods: written by the session with the agent alone, read by every connection.
#[derive(Debug)]
pub(super) struct Fleet {
    members: ArcSwap<HashMap<PodId, Arc<Member>>>,
    pub(super) recall: Recall,
    pub(super) tallies: Tallies,
    pub(super) depot: Arc<Depot>,
}

impl Member {
    pub(super) fn new(info: PodInfo, pod: Arc<Pod>, depot: &Arc<Depot>) -> Self {
        let has = |v6: bool| info.addresses.iter().any(|address| address.is_ipv6() == v6);
        let stock = |kind: SocketKind| {
            let wish = Wish { id: pod.id, pod: info.key, kind };
            Stock::new(wish, has(is_v6(kind)), Arc::clone(depot))
        };
        let stocks = SocketKind::ALL.map(stock);
        Self { info, pod, stocks, over: CancellationToken::new() }
    }

    /// Its key.
    pub(super) fn key(&self) -> PodKey {
        self.info.key
    }

    pub(super) fn stock(&self, kind: SocketKind) -> &Stock {
        of_kind(&self.stocks, kind)
    }

    pub(super) fn stocks(&self) -> &[Stock; 6] {
        &self.stocks
    }

    /// Stocks and DNS are over.
    pub(super) fn is_closed(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends stocks and DNS; queries under way end by themselves.
    pub(super) fn close(&self) {
        self.over.cancel();
        self.stocks.iter().for_each(|stock| stock.close(Empty::Closed));
    }
}

/// The one of six, which are in the order of `SocketKind::ALL`.
fn of_kind<T>(six: &[T; 6], kind: SocketKind) -> &T {
    let [egress4, egress6, ingress4, ingress6, dns4, dns6] = six;
    match kind {
        SocketKind::Egress4 => egress4,
        SocketKind::Egress6 => egress6,
        SocketKind::Ingress4 => ingress4,
        SocketKind::Ingress6 => ingress6,
        SocketKind::Dns4 => dns4,
        SocketKind::Dns6 => dns6,
    }
}

impl Fleet {
    pub(super) fn new(depot: Arc<Depot>) -> Self {
        Self { members: ArcSwap::default(), recall: Recall::default(), tallies: Tallies::default(), depot }
    }

    pub(super) fn members(&self) -> Arc<HashMap<PodId, Arc<Member>>> {
        self.members.load_full()
    }

    pub(super) fn set(&self, members: HashMap<PodId, Arc<Member>>) {
        self.members.store(Arc::new(members));
    }

    pub(super) fn tally(&self, kind: SocketKind) -> &SocketTally {
        of_kind(&self.tallies.sockets, kind)
    }

    /// A socket inside the pod.
    pub(super) async fn take(&self, id: PodId, kind: SocketKind) -> io::Result<OwnedFd> {
        let member = self.members.load().get(&id).cloned();
        let taken = match member {
            Some(member) => member.stock(kind).take(self.tally(kind)).await,
            None => Err(Empty::Closed),
        };
        taken.map_err(|empty| {
            tracing::debug!(pod = %id, ?kind, "{empty}");
            let kind = match empty {
                Empty::NoFamily => io::ErrorKind::NetworkUnreachable,
                Empty::NoAgent | Empty::Late | Empty::Closed => io::ErrorKind::ResourceBusy,
            };
            io::Error::new(kind, empty)
        })
    }
}

impl Plumbing for Fleet {
    fn original(&self, pod: &Pod, _socket: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        // The listener is the pod's alone: whatever was accepted on it is of the pod's namespace.
        let netns = self.members.load().get(&pod.id)?.info.key.netns;
        let address = self.recall.original(netns, peer);
        let tally = &self.tallies.original;
        if address.is_some() {
            tally.found.one()
        } else {
            tally.missing.one()
        }
        address
    }

    fn socket(&self, pod: &Arc<Pod>, what: Use, v6: bool) -> SocketFuture<'_> {
        let id = pod.id;
        let kind = match (what, v6) {
            (Use::Egress, false) => SocketKind::Egress4,
            (Use::Egress, true) => SocketKind::Egress6,
            (Use::Ingress, false) => SocketKind::Ingress4,
            (Use::Ingress, true) => SocketKind::Ingress6,
        };
        Box::pin(async move {
            let socket = self.take(id, kind).await?;
            Ok(TcpSocket::from_std_stream(socket.into()))
        })
    }
}

/// As metrics have it.
pub(crate) const fn name(kind: SocketKind) -> &'static str {
    match kind {
        SocketKind::Egress4 => "egress4",
        SocketKind::Egress6 => "egress6",
        SocketKind::Ingress4 => "ingress4",
        SocketKind::Ingress6 => "ingress6",
        SocketKind::Dns4 => "dns4",
        SocketKind::Dns6 => "dns6",
    }
}

fn is_v6(kind: SocketKind) -> bool {
    matches!(kind, SocketKind::Egress6 | SocketKind::Ingress6 | SocketKind::Dns6)
}
