//! Netlink, as far as enrolment needs it: interfaces, addresses, rules, routes and the sockets of a
//! namespace. A socket is of the namespace of the thread that opens it.

pub(crate) mod diag;
pub(crate) mod message;
pub(crate) mod route;

use std::{io, os::fd::OwnedFd, time::Duration};

use message::{Body, Messages};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv,
    sendto, socket_with, sockopt,
};

/// `NLM_F_REQUEST`, `NLM_F_ACK`.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`: all of them.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE | NLM_F_EXCL`: an error if it is there.
pub(crate) const CREATE: u16 = 0x600;

/// Longest message that the kernel sends; netlink(7) asks for 8 KiB, dumps fill up to 32.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this bounds a wait for what never comes.
const WAIT: Duration = Duration::from_secs(5);
/// Answers to one question, against a dump that never ends.
const MAX_MESSAGES: usize = 4_000_000;

/// A netlink socket of one family of questions.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Without a protocol: rtnetlink, which is number 0.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(WAIT))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks for something to be done; the error is the kernel's.
    pub(crate) fn order(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        self.exchange(kind, flags | ACK, body, &mut |_, _| Ok(()))
    }

    /// Asks a question; `each` gets the kind and the body of every answer.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
        each: &mut dyn FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let flags = if flags & DUMP == DUMP { flags } else { flags | ACK };
        self.exchange(kind, flags, body, each)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &Body,
        each: &mut dyn FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = body.message(kind, flags | REQUEST, self.sequence)?;
        sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut seen = 0usize;
        loop {
            let (_, length) = recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC)?;
            let received =
                self.buffer.get(..length).ok_or_else(|| malformed("a message longer than the buffer"))?;
            for message in Messages::of(received) {
                let (header, body) = message?;
                if header.sequence != self.sequence {
                    continue;
                }
                seen += 1;
                match header.end(body)? {
                    true => return Ok(()),
                    false if seen > MAX_MESSAGES => return Err(malformed("a dump without end")),
                    false => each(header.kind, body)?,
                }
            }
        }
    }
}

/// The kernel's answer was not what netlink(7) promises.
pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {what}"))
}
