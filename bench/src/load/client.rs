//! One connection of the generator.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http1::Responses;
use super::http2;
use super::lane::{Protocol, Requests};

/// Connecting over loopback takes longer only when the peer is stuck.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    wire: Wire,
    out: Out,
    /// Registered for writing, beside reading.
    pub(super) watches_writing: bool,
}

#[derive(Debug)]
enum Wire {
    One { responses: Responses, due: Option<Instant> },
    Two(http2::Connection),
}

/// What waits to be written, and how much of it has been.
#[derive(Debug)]
enum Out {
    Shared(Arc<[u8]>, usize),
    Own(Vec<u8>, usize),
}

/// A connection that is of no further use, and why.
pub(super) struct Lost(pub(super) String);

impl Client {
    pub(super) fn connect(target: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut out = Vec::new();
        let wire = match protocol {
            Protocol::Http1 => Wire::One { responses: Responses::default(), due: None },
            Protocol::Http2 => Wire::Two(http2::Connection::new(&mut out)),
        };
        Ok(Self { stream, wire, out: Out::Own(out, 0), watches_writing: false })
    }

    /// Requests without an answer.
    pub(super) fn under_way(&self) -> u64 {
        match &self.wire {
            Wire::One { due, .. } => u64::from(due.is_some()),
            Wire::Two(connection) => connection.open() as u64,
        }
    }

    /// Puts the next request in the way out; `false` when there is none any more.
    pub(super) fn prepare(&mut self, requests: &mut Requests, due: Instant) -> bool {
        match (&mut self.wire, requests) {
            (Wire::One { due: place, .. }, Requests::Same(bytes)) => {
                *place = Some(due);
                self.out = Out::Shared(Arc::clone(bytes), 0);
            }
            (Wire::One { due: place, .. }, Requests::Fresh(fresh)) => {
                let out = self.out.own();
                if !fresh.write(Protocol::Http1, out) {
                    return false;
                }
                *place = Some(due);
            }
            (Wire::Two(connection), Requests::Same(block)) => connection.send(block, due, self.out.own()),
            (Wire::Two(connection), Requests::Fresh(fresh)) => {
                let mut block = Vec::with_capacity(2048);
                if !fresh.write(Protocol::Http2, &mut block) {
                    return false;
                }
                connection.send(&block, due, self.out.own());
            }
        }
        true
    }

    /// Writes what can be written; whether all of it was.
    pub(super) fn flush(&mut self) -> Result<bool, Lost> {
        loop {
            let (bytes, at) = match &mut self.out {
                Out::Shared(bytes, at) => (&bytes[..], at),
                Out::Own(bytes, at) => (&bytes[..], at),
            };
            let left = bytes.get(*at..).unwrap_or_default();
            if left.is_empty() {
                self.out.clear();
                return Ok(true);
            }
            match self.stream.write(left) {
                Ok(written) => *at += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Lost(error.kind().to_string())),
            }
        }
    }

    /// Reads what there is, once; `answered` gets status and due moment of each whole answer.
    /// Whether the connection can be used on.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        mut answered: impl FnMut(u16, Instant),
    ) -> Result<bool, Lost> {
        let read = match self.stream.read(scratch) {
            Ok(0) => return Err(Lost("connection closed".to_owned())),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(Lost(error.kind().to_string())),
        };
        let input = scratch.get(..read).unwrap_or_default();
        match &mut self.wire {
            Wire::One { responses, due } => {
                let Some(answer) = responses.feed(input).map_err(|error| Lost(error.to_string()))? else {
                    return Ok(true);
                };
                let due = due.take().ok_or_else(|| Lost("an answer that nobody asked for".to_owned()))?;
                answered(answer.status, due);
                Ok(!answer.close)
            }
            Wire::Two(connection) => {
                let fed = connection.feed(input, self.out.own(), answered);
                fed.map(|()| true).map_err(|error| Lost(error.to_string()))
            }
        }
    }
}

impl Out {
    /// The buffer to append to; what is shared has been written by then, as HTTP/1.1 waits for its turn.
    fn own(&mut self) -> &mut Vec<u8> {
        if let Self::Shared(bytes, at) = self {
            let left = bytes.get(*at..).unwrap_or_default().to_vec();
            *self = Self::Own(left, 0);
        }
        match self {
            Self::Own(bytes, _) => bytes,
            Self::Shared(..) => unreachable!("made our own above"),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Shared(..) => *self = Self::Own(Vec::new(), 0),
            Self::Own(bytes, at) => {
                bytes.clear();
                *at = 0;
            }
        }
    }
}
