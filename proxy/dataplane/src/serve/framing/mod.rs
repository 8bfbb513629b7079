//! HTTP/1 framing, looked at before the codec sees a byte: whatever two servers could read
//! differently is refused here (RFC 9112 §2.2, §5, §6, §7, §11.2).
//!
//! Pure: bytes in, a count of bytes that may pass out. [`Framer::take`] never passes part of a head,
//! and never passes bytes of two messages at once. Bodies of known length are skipped, not looked at.

mod chunked;
mod head;
#[cfg(test)]
mod tests;

use crate::{limits::Exceeded, refusal::Refusal};

use chunked::Chunked;
use head::Head;

/// Limits of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Request line and headers together, bytes.
    pub bytes: usize,
    /// Header lines.
    pub count: usize,
}

/// Why a message is refused. The text is for the client and for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Malformed or ambiguous: 400.
    #[error("{0}")]
    Malformed(&'static str),
    /// A limit of ours: 431.
    #[error("limit {} exceeded", .0.name())]
    Limit(Exceeded),
}

impl From<FramingError> for Refusal {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::Malformed(reason) => Self::Malformed(reason),
            FramingError::Limit(exceeded) => Self::Limit(exceeded),
        }
    }
}

/// How the body after a head ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    /// `Content-Length`, or 0 without any (RFC 9112 §6.3 point 7).
    Exactly(u64),
    /// `Transfer-Encoding: chunked`
    Chunked,
}

/// Where in the stream of messages we are.
#[derive(Debug)]
enum State {
    Head(Head),
    Length(u64),
    Chunked(Chunked),
    /// After an accepted upgrade: bytes of another protocol.
    Passing,
}

/// Follows the messages of one connection.
#[derive(Debug)]
pub struct Framer {
    state: State,
    limits: HeadLimits,
    upgrade_asked: bool,
}

impl Framer {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self { state: State::Head(Head::default()), limits, upgrade_asked: false }
    }

    /// How many of these bytes may pass: 0 asks for more of the head, which must then be handed in
    /// again from its beginning. Stops at the end of each message.
    ///
    /// # Errors
    /// [`FramingError`]: the connection cannot be followed any further.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        match &mut self.state {
            State::Head(head) => match head.scan(bytes, self.limits)? {
                None => Ok(0),
                Some((end, facts)) => {
                    self.upgrade_asked = facts.upgrade;
                    self.state = match facts.body {
                        BodyLength::Exactly(0) => State::Head(Head::default()),
                        BodyLength::Exactly(length) => State::Length(length),
                        BodyLength::Chunked => State::Chunked(Chunked::default()),
                    };
                    Ok(end)
                }
            },
            State::Length(left) => {
                let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
                *left -= here;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                Ok(usize::try_from(here).unwrap_or(bytes.len()))
            }
            State::Chunked(chunked) => {
                let (taken, ended) = chunked.scan(bytes)?;
                if ended {
                    self.state = State::Head(Head::default());
                }
                Ok(taken)
            }
            State::Passing => Ok(bytes.len()),
        }
    }

    /// Whether the next byte belongs to a head.
    #[must_use]
    pub fn at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether the last head asked for an upgrade: what follows it is not looked at before the answer.
    #[must_use]
    pub fn upgrade_asked(&self) -> bool {
        self.upgrade_asked
    }

    /// The upgrade was accepted: from here on every byte passes.
    pub fn pass(&mut self) {
        self.state = State::Passing;
    }

    /// Whether every byte passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self.state, State::Passing)
    }
}
