//! Connections at the agent's socket: each a task that reads, asks the steward and writes, one request
//! at a time, so that one who does not read his answers keeps nobody else waiting.

#[cfg(test)]
mod tests;

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    fleet::ProxyId,
    protocol::{
        Admission, Ask, Hello, Link, LinkError, Message, PATIENCE, Peer, PodInfo, Refusal, Reply, Request,
        Role, Seat, VERSION, Welcome,
    },
    steward::{Answer, Feeds, Order},
};

/// After a failure of the listening socket, such as no file descriptor being left.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of pods in one message; the rest is for the frame.
const PART: usize = 48 * 1024;

/// Lets connections in until told to stop.
pub(super) async fn receive(seat: Seat, orders: Sender<Order>, feeds: Feeds, stop: CancellationToken) {
    let mut next: ProxyId = 1;
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = seat.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((link, peer, admission)) => {
                let guest = Guest { id: next, link, peer, orders: orders.clone() };
                (next, failing) = (next + 1, false);
                tokio::spawn(guest.stay(admission, feeds.clone()));
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "nobody can be let in at the agent's socket; it is tried again");
                }
                failing = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Guest {
    id: ProxyId,
    link: Link,
    peer: Peer,
    orders: Sender<Order>,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Farewell {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("it was turned away: {0}")]
    Refused(String),
    #[error("the agent is ending")]
    Ending,
}

impl Guest {
    async fn stay(self, admission: Admission, feeds: Feeds) {
        match self.attend(&feeds).await {
            Ok(()) | Err(Farewell::Link(LinkError::Closed) | Farewell::Ending) => {
                tracing::debug!(connection = self.id, pid = self.peer.pid, "closed");
            }
            Err(farewell) => {
                tracing::warn!(connection = self.id, pid = self.peer.pid, "closed: {farewell}");
            }
        }
        // Where the steward has ended, nothing is waiting any more.
        let _ = self.orders.send(Order::Part { proxy: self.id, admission: Some(admission) });
    }

    async fn attend(&self, feeds: &Feeds) -> Result<(), Farewell> {
        let first = tokio::time::timeout(PATIENCE, self.link.receive::<Request>());
        let Request { id, ask } = first.await.map_err(|_| LinkError::Timeout)??.message;
        let Ask::Hello(hello) = ask else {
            return self.turn_away(id, Refusal::NotNow, "hello comes first").await;
        };
        if hello.version != VERSION {
            let text = format!("the agent speaks version {VERSION}, you {}", hello.version);
            return self.turn_away(id, Refusal::Version, &text).await;
        }
        match hello.role {
            Role::Operator => self.operator(id, feeds).await,
            Role::Proxy => self.proxy(id, hello, feeds).await,
        }
    }

    async fn turn_away(&self, id: u64, reason: Refusal, detail: &str) -> Result<(), Farewell> {
        let say = Reply::Refused { reason, detail: detail.to_owned() };
        self.link.send(&Message { to: Some(id), say }, &[]).await?;
        Err(Farewell::Refused(detail.to_owned()))
    }

    async fn operator(&self, id: u64, feeds: &Feeds) -> Result<(), Farewell> {
        let node_addresses = feeds.node.borrow().to_vec();
        let say = Reply::Welcome(Welcome { version: VERSION, node_addresses });
        self.link.send(&Message { to: Some(id), say }, &[]).await?;
        loop {
            let request = self.link.receive::<Request>().await?.message;
            self.serve(None, request).await?;
        }
    }

    async fn proxy(&self, id: u64, hello: Hello, feeds: &Feeds) -> Result<(), Farewell> {
        let (superseded, mut taken_over) = watch::channel(false);
        let (answer, welcome) = oneshot::channel();
        let Hello { started, serving, .. } = hello;
        let join = Order::Join { proxy: self.id, peer: self.peer, started, serving, superseded, answer };
        self.orders.send(join).map_err(|_| Farewell::Ending)?;
        self.send(Some(id), welcome.await.map_err(|_| Farewell::Ending)?).await?;
        let (mut pods, mut node) = (feeds.pods.subscribe(), feeds.node.subscribe());
        pods.mark_changed();
        loop {
            tokio::select! {
                request = self.link.receive::<Request>() => self.serve(Some(self.id), request?.message).await?,
                changed = pods.changed() => {
                    changed.map_err(|_| Farewell::Ending)?;
                    let now = pods.borrow_and_update().clone();
                    if let Some(now) = now {
                        self.send_pods(&now).await?;
                    }
                }
                changed = node.changed() => {
                    changed.map_err(|_| Farewell::Ending)?;
                    let addresses = node.borrow_and_update().to_vec();
                    self.send(None, Reply::Node { addresses }.into()).await?;
                }
                changed = taken_over.changed() => {
                    changed.map_err(|_| Farewell::Ending)?;
                    if *taken_over.borrow_and_update() {
                        self.send(None, Reply::Superseded {}.into()).await?;
                    }
                }
            }
        }
    }

    async fn serve(&self, proxy: Option<ProxyId>, request: Request) -> Result<(), Farewell> {
        let (answer, answers) = oneshot::channel();
        self.orders.send(Order::Ask { proxy, ask: request.ask, answer }).map_err(|_| Farewell::Ending)?;
        for answer in answers.await.map_err(|_| Farewell::Ending)? {
            self.send(Some(request.id), answer).await?;
        }
        Ok(())
    }

    async fn send(&self, to: Option<u64>, answer: Answer) -> Result<(), Farewell> {
        let descriptors: Vec<BorrowedFd<'_>> = answer.descriptors.iter().map(|fd| fd.as_fd()).collect();
        Ok(self.link.send(&Message { to, say: answer.reply }, &descriptors).await?)
    }

    async fn send_pods(&self, pods: &Arc<Vec<PodInfo>>) -> Result<(), Farewell> {
        let mut rest = pods.as_slice();
        loop {
            let (part, after) = rest.split_at(fitting(rest));
            let say = Reply::Pods { more: !after.is_empty(), pods: part.to_vec() };
            self.send(None, say.into()).await?;
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }
}

/// How many of these fit in a message; at least one where there is one.
fn fitting(pods: &[PodInfo]) -> usize {
    let mut size = 0;
    let fits = |pod: &&PodInfo| {
        size += serde_json::to_string(pod).map_or(0, |text| text.len() + 1);
        size <= PART
    };
    pods.iter().take_while(fits).count().max(pods.len().min(1))
}
