//! One end of a connection: packets with descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

use super::{MAX_DESCRIPTORS, MAX_MESSAGE, PATIENCE};

/// One end of a connection. Sending and receiving may go on at the same time; receiving may be
/// abandoned at any await without losing a packet.
#[derive(Debug)]
pub struct Link {
    // A packet socket in a stream's clothes: readiness and peer credentials are the same for both.
    socket: UnixStream,
    /// Whether descriptors are taken; where not, a packet with some is an error.
    descriptors: bool,
}

/// A message and what came beside it.
#[derive(Debug)]
pub struct Packet<T> {
    /// The message.
    pub message: T,
    /// The descriptors beside it, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("the agent's socket: {0}")]
    Io(#[from] io::Error),
    /// The other end has closed.
    #[error("the other end has closed the connection")]
    Closed,
    /// A packet is too long, has too many descriptors, or any where none are taken.
    #[error("a packet of the other end is too large, or has descriptors that are not wanted")]
    Excess,
    /// A packet is no message, or its descriptors are not what the message says.
    #[error("a packet of the other end cannot be understood: {0}")]
    Malformed(String),
    /// The other end did not take or say anything in time.
    #[error("the other end does not answer")]
    Timeout,
    /// A message of our own does not fit: a bug.
    #[error("a message of {0} bytes does not fit")]
    TooLong(usize),
}

/// A socket for packets, non-blocking.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Link {
    /// Connects to a socket's path and takes descriptors from it.
    pub(in crate::agent) fn connect(path: &Path) -> io::Result<Self> {
        let socket = packet_socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let socket = UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))?;
        Ok(Self { socket, descriptors: true })
    }

    /// Of an accepted connection, which may not send us descriptors.
    pub(super) fn accepted(socket: UnixStream) -> Self {
        Self { socket, descriptors: false }
    }

    /// User and process at the other end, as the kernel knows them; process 0 where it is in another
    /// process namespace.
    pub(super) fn peer(&self) -> io::Result<(u32, i32)> {
        let credentials = self.socket.peer_cred()?;
        Ok((credentials.uid(), credentials.pid().unwrap_or(0)))
    }

    /// Sends one message, whole or not at all, waiting at most [`PATIENCE`] for room.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is of no more use.
    pub async fn send<T: Serialize + Sync>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let bytes = serde_json::to_vec(message).map_err(|error| LinkError::Malformed(error.to_string()))?;
        if bytes.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(LinkError::TooLong(bytes.len()));
        }
        let send =
            self.socket.async_io(Interest::WRITABLE, || send_packet(&self.socket, &bytes, descriptors));
        match tokio::time::timeout(PATIENCE, send).await {
            Ok(sent) => sent.map_err(closed),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// [`LinkError`]; the connection is of no more use.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<Packet<T>, LinkError> {
        let receive = || receive_packet(&self.socket, self.descriptors);
        let raw = self.socket.async_io(Interest::READABLE, receive).await.map_err(closed)?;
        // A packet of no bytes and the end look the same, and both are the end.
        if raw.bytes.is_empty() && raw.descriptors.is_empty() {
            return Err(LinkError::Closed);
        }
        if raw.cut {
            return Err(LinkError::Excess);
        }
        let message =
            serde_json::from_slice(&raw.bytes).map_err(|error| LinkError::Malformed(error.to_string()))?;
        Ok(Packet { message, descriptors: raw.descriptors })
    }
}

fn closed(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => LinkError::Closed,
        _ => LinkError::Io(error),
    }
}

fn send_packet(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = ancillary_space();
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    // NOSIGNAL: a peer that has gone is an error here, not the end of the process.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::other("a packet was sent in part")) }
}

/// Room for as many descriptors as the kernel lets through.
fn ancillary_space() -> Vec<MaybeUninit<u8>> {
    vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))]
}

struct Raw {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Bytes or descriptors did not fit.
    cut: bool,
}

fn receive_packet(socket: &UnixStream, take_descriptors: bool) -> io::Result<Raw> {
    let mut bytes = vec![0; MAX_MESSAGE];
    // Without room for them the kernel drops descriptors before they are ours, so that a peer cannot
    // use up our table of them.
    let mut space = if take_descriptors { ancillary_space() } else { Vec::new() };
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    bytes.truncate(received.bytes);
    Ok(Raw { bytes, descriptors, cut })
}
