//! The agent's messages with their descriptors in the places where they belong.

use std::{
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    LinkError, MAX_PODS, MAX_STATUS, Message, Packet, PodInfo, PodKey, Refusal, Reply, SocketKind,
    StatusPart, Welcome,
};

/// What the agent said, whole: lists that came in parts are put together.
#[derive(Debug)]
pub enum News {
    /// See [`Reply::Welcome`]. The maps are there for a proxy.
    Welcome(Welcome, Option<MapDescriptors>),
    /// All enrolled pods, as of now.
    Pods(Vec<PodInfo>),
    /// The node's own addresses, as of now.
    Node(Vec<IpAddr>),
    /// See [`Reply::Listeners`]; at least one family is there.
    Listeners {
        /// Whose.
        pod: PodKey,
        /// IPv4.
        v4: Option<FamilyListeners>,
        /// IPv6.
        v6: Option<FamilyListeners>,
    },
    /// See [`Reply::Sockets`].
    Sockets {
        /// Whose.
        pod: PodKey,
        /// Which kind.
        kind: SocketKind,
        /// At least one.
        sockets: Vec<OwnedFd>,
    },
    /// See [`Reply::Ready`].
    Ready(PodKey),
    /// See [`Reply::Superseded`].
    Superseded,
    /// See [`Reply::Refused`].
    Refused(Refusal, String),
    /// All of the agent's account.
    Status(StatusPart),
}

/// The maps that the proxy reads.
#[derive(Debug)]
pub struct MapDescriptors {
    /// ORIGINS.
    pub origins: OwnedFd,
    /// DNS_ORIGINS.
    pub dns_origins: OwnedFd,
    /// COUNTERS.
    pub counters: OwnedFd,
}

/// The listeners of one address family.
#[derive(Debug)]
pub struct FamilyListeners {
    /// TCP: connections that arrive at the pod.
    pub inbound: OwnedFd,
    /// TCP: connections that the pod opens.
    pub outbound: OwnedFd,
    /// UDP: queries to the first, second, third and fourth server of a socket.
    pub dns: [OwnedFd; abi::DNS_SERVERS],
}

impl FamilyListeners {
    /// In the order in which they travel.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.inbound, &self.outbound].into_iter().chain(&self.dns).map(AsFd::as_fd)
    }

    fn take(from: &mut impl Iterator<Item = OwnedFd>) -> Result<Self, LinkError> {
        let mut next = || from.next().ok_or_else(|| wrong("listeners are missing"));
        Ok(Self { inbound: next()?, outbound: next()?, dns: [next()?, next()?, next()?, next()?] })
    }
}

fn wrong(what: &str) -> LinkError {
    LinkError::Malformed(what.to_owned())
}

/// Lists that are on their way.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pods: Vec<PodInfo>,
    status: Option<StatusPart>,
}

impl Parts {
    /// Takes a packet; gives the news when it is whole, with the request it answers.
    pub(super) fn take(&mut self, packet: Packet<Message>) -> Result<Option<(Option<u64>, News)>, LinkError> {
        let Packet { message: Message { to, say }, descriptors } = packet;
        let mut descriptors = descriptors.into_iter();
        let news = match say {
            Reply::Welcome(welcome) => Some(News::Welcome(welcome, maps(&mut descriptors)?)),
            Reply::Pods { more, pods } => self.pods(more, pods)?,
            Reply::Node { addresses } => Some(News::Node(addresses)),
            Reply::Listeners { v4: false, v6: false, .. } => return Err(wrong("listeners of no family")),
            Reply::Listeners { pod, v4, v6 } => {
                let mut family =
                    |is_there: bool| is_there.then(|| FamilyListeners::take(&mut descriptors)).transpose();
                Some(News::Listeners { pod, v4: family(v4)?, v6: family(v6)? })
            }
            Reply::Sockets { pod, kind } => {
                let sockets: Vec<OwnedFd> = descriptors.by_ref().collect();
                if sockets.is_empty() {
                    return Err(wrong("no sockets beside `sockets`"));
                }
                Some(News::Sockets { pod, kind, sockets })
            }
            Reply::Ready { pod } => Some(News::Ready(pod)),
            Reply::Superseded {} => Some(News::Superseded),
            Reply::Refused { reason, detail } => Some(News::Refused(reason, detail)),
            Reply::Status(part) => self.status(part)?,
        };
        if descriptors.next().is_some() {
            return Err(wrong("more descriptors than the message says"));
        }
        Ok(news.map(|news| (to, news)))
    }

    fn pods(&mut self, more: bool, pods: Vec<PodInfo>) -> Result<Option<News>, LinkError> {
        self.pods.extend(pods);
        if self.pods.len() > MAX_PODS {
            return Err(wrong("more pods than there are slots"));
        }
        Ok((!more).then(|| News::Pods(std::mem::take(&mut self.pods))))
    }

    fn status(&mut self, part: StatusPart) -> Result<Option<News>, LinkError> {
        let more = part.more;
        match &mut self.status {
            Some(known) => known.pods.extend(part.pods),
            None => self.status = Some(part),
        }
        if self.status.as_ref().is_some_and(|known| known.pods.len() > MAX_STATUS) {
            return Err(wrong("a status of too many pods"));
        }
        let whole = if more { None } else { self.status.take() };
        Ok(whole.map(|status| News::Status(StatusPart { more: false, ..status })))
    }
}

fn maps(descriptors: &mut impl Iterator<Item = OwnedFd>) -> Result<Option<MapDescriptors>, LinkError> {
    let Some(origins) = descriptors.next() else { return Ok(None) };
    let mut next = || descriptors.next().ok_or_else(|| wrong("maps are missing"));
    Ok(Some(MapDescriptors { origins, dns_origins: next()?, counters: next()? }))
}
