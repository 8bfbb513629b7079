//! Forwarding of the pods' DNS queries: unchanged, to the server that the application asked, from
//! inside the pod; the answer goes back through the socket that the query came by.
//!
//! Each query has a socket of its own, so that its source port is as hard to guess as the kernel makes
//! it (RFC 5452 section 9.2), and one answer: the first from that server with the query's id.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use dataplane::capture::PodId;
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    fleet::{Fleet, Member},
    tally::DnsTally,
};
use crate::agent::protocol::SocketKind;

/// Longest datagram.
const DATAGRAM: usize = 65_535;
/// Queries taken from one socket before others have their turn.
const AT_A_TIME: usize = 64;
/// Pause after an error of a pod's own socket.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// What all pods' queries share.
#[derive(Debug, Clone)]
pub(super) struct Forwarding {
    pub(super) fleet: Arc<Fleet>,
    /// Queries under way, of all pods.
    pub(super) all: Arc<Semaphore>,
    pub(super) per_pod: usize,
    pub(super) timeout: Duration,
}

/// What one pod's queries share.
struct Desk {
    forwarding: Forwarding,
    pod: PodId,
    netns: u64,
    /// Queries under way, of this pod.
    own: Arc<Semaphore>,
    over: CancellationToken,
}

impl Forwarding {
    /// Serves a pod's DNS sockets until the member is closed; queries under way end by themselves.
    pub(super) fn serve(
        &self,
        member: &Member,
        families: Vec<[OwnedFd; abi::DNS_SERVERS]>,
    ) -> io::Result<()> {
        let desk = Arc::new(Desk {
            forwarding: self.clone(),
            pod: member.pod.id,
            netns: member.key().netns,
            own: Arc::new(Semaphore::new(self.per_pod)),
            over: member.over.clone(),
        });
        let sockets = families.into_iter().flat_map(|family| (0..).zip(family));
        let sockets = sockets.map(|(number, socket)| Ok((number, UdpSocket::from_std(socket.into())?)));
        for (number, socket) in sockets.collect::<io::Result<Vec<_>>>()? {
            tokio::spawn(Arc::clone(&desk).take_queries(number, Arc::new(socket)));
        }
        Ok(())
    }
}

/// A query's place in both tables.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Desk {
    async fn take_queries(self: Arc<Self>, number: u32, socket: Arc<UdpSocket>) {
        loop {
            let ready = tokio::select! {
                ready = socket.readable() => ready,
                () = self.over.cancelled() => return,
            };
            if let Err(error) = ready.and_then(|()| self.take_some(number, &socket)) {
                tracing::debug!(pod = %self.pod, %error, "a DNS socket failed");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes what is there, up to a number that leaves others their turn. The room for a datagram is
    /// made when there is one: pods have eight sockets, most of them idle.
    fn take_some(self: &Arc<Self>, number: u32, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let mut query = Vec::with_capacity(DATAGRAM);
        for _ in 0..AT_A_TIME {
            query.clear();
            match socket.try_recv_buf_from(&mut query) {
                Ok((_, client)) => self.take_query(number, socket, &query, client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_query(self: &Arc<Self>, number: u32, socket: &Arc<UdpSocket>, query: &[u8], client: SocketAddr) {
        let Some(server) = self.forwarding.fleet.recall.dns_server(self.netns, client, number) else {
            self.tally().no_server.one();
            return;
        };
        let Some(place) = self.place() else {
            self.tally().too_many.one();
            return;
        };
        let (desk, socket, query) = (Arc::clone(self), Arc::clone(socket), query.to_vec());
        tokio::spawn(async move {
            let answered = desk.forward(query, server).await;
            match answered {
                Ok(answer) if socket.send_to(&answer, client).await.is_ok() => desk.tally().answered.one(),
                Ok(_) => desk.tally().failed.one(),
                Err(lost) => desk.tell(lost, server),
            }
            drop(place);
        });
    }

    fn place(&self) -> Option<Place> {
        let own = Arc::clone(&self.own).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.forwarding.all).try_acquire_owned().ok()?;
        Some((own, all))
    }

    /// Sends the query and waits for its answer.
    async fn forward(&self, query: Vec<u8>, server: SocketAddr) -> Result<Vec<u8>, Lost> {
        let deadline = Instant::now() + self.forwarding.timeout;
        let kind = if server.is_ipv4() { SocketKind::Dns4 } else { SocketKind::Dns6 };
        let socket = self.forwarding.fleet.take(self.pod, kind).await.map_err(Lost::NoSocket)?;
        let socket = UdpSocket::from_std(socket.into()).map_err(Lost::Failed)?;
        socket.connect(server).await.map_err(Lost::Failed)?;
        socket.send(&query).await.map_err(Lost::Failed)?;
        let id = query.get(..ID).map(<[u8]>::to_vec);
        // While it is waited for, a query costs a socket and its id.
        drop(query);
        tokio::time::timeout_at(deadline, answer(&socket, id.as_deref())).await.map_err(|_| Lost::Timeout)?
    }

    fn tally(&self) -> &DnsTally {
        &self.forwarding.fleet.tallies.dns
    }

    fn tell(&self, lost: Lost, server: SocketAddr) {
        let (tally, error) = match lost {
            Lost::Timeout => (&self.tally().timeout, None),
            Lost::NoSocket(error) => (&self.tally().no_socket, Some(error)),
            Lost::Failed(error) => (&self.tally().failed, Some(error)),
        };
        tally.one();
        let error = error.map(|error| error.to_string());
        tracing::debug!(pod = %self.pod, %server, error, "a DNS query has no answer");
    }
}

/// Bytes of a message's id (RFC 1035 section 4.1.1).
const ID: usize = 2;

/// Why a query has no answer.
enum Lost {
    Timeout,
    NoSocket(io::Error),
    Failed(io::Error),
}

/// The first datagram with this id; the kernel lets through the server's alone.
async fn answer(socket: &UdpSocket, id: Option<&[u8]>) -> Result<Vec<u8>, Lost> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await.map_err(Lost::Failed)?;
        // Said without a datagram: the server's port is closed, or its network unreachable.
        if ready.is_error() {
            let error = socket.take_error().ok().flatten();
            return Err(Lost::Failed(error.unwrap_or_else(|| io::Error::other("the socket failed"))));
        }
        // Made when something is there, not while it is waited for.
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match socket.try_recv_buf(&mut datagram) {
            Ok(_) if id.is_none_or(|id| datagram.starts_with(id)) => return Ok(datagram),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Lost::Failed(error)),
        }
    }
}
