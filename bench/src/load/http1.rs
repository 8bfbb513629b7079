//! As much of HTTP/1.1 as a load generator and its upstream need: where a message ends, and its status.

use memchr::memmem;

/// A head that is longer than this is not one of ours.
const MAX_HEAD: usize = 64 * 1024;

/// Why bytes are not the message that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No end of head within the limit.
    #[error("a head without end")]
    Head,
    /// No status line, or no request line.
    #[error("no start line")]
    StartLine,
    /// Neither a length nor chunks: the end cannot be told from a broken connection.
    #[error("a body without length")]
    Length,
    /// A chunk's size is no number, or its end is not there.
    #[error("a broken chunk")]
    Chunk,
    /// More bytes than one message has.
    #[error("bytes after the message")]
    Surplus,
}

/// What a head says that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// `Content-Length`, where there is one.
    pub length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub chunked: bool,
    /// `Connection: close`.
    pub close: bool,
}

/// Reads the headers of a head (start line included) for its framing.
#[must_use]
pub fn framing(head: &[u8]) -> Framing {
    let mut found = Framing { length: None, chunked: false, close: false };
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        // Most lines are told by their first letter and length of name alone.
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value(line, b"content-length") {
                    found.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                } else if let Some(value) = value(line, b"connection") {
                    found.close = value.eq_ignore_ascii_case(b"close");
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value(line, b"transfer-encoding") {
                    found.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
            }
            _ => {}
        }
    }
    found
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| rest.trim_ascii())
}

/// Where the head at the front of `input` ends, its empty line included.
pub fn head_end(input: &[u8]) -> Result<Option<usize>, Malformed> {
    match memmem::find(input, b"\r\n\r\n") {
        Some(at) => Ok(Some(at + 4)),
        None if input.len() > MAX_HEAD => Err(Malformed::Head),
        None => Ok(None),
    }
}

/// What is left of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Bytes(u64),
    /// Chunks up to the empty one.
    Chunks(Chunks),
}

/// Where in a chunked body the reader stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunks {
    /// Within a line that gives a size, of which this much has been read.
    Size(u64),
    /// After the size, up to the line's end.
    Extension(u64),
    /// Within data; the line end behind it counts with it.
    Data(u64),
    /// Trailers up to an empty line: the length of the line so far.
    Trailers(u64),
    /// All read.
    Done,
}

impl Body {
    /// The body that follows a head.
    #[must_use]
    pub fn of(framing: Framing) -> Option<Self> {
        if framing.chunked { Some(Self::Chunks(Chunks::Size(0))) } else { framing.length.map(Self::Bytes) }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Chunks(Chunks::Done))
    }

    /// Takes what belongs to the body from the front of `input`, and gives how much that was.
    ///
    /// # Errors
    /// [`Malformed::Chunk`].
    pub fn take(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Bytes(left) => {
                let taken = (*left).min(input.len() as u64);
                *left -= taken;
                Ok(usize::try_from(taken).unwrap_or(input.len()))
            }
            Self::Chunks(chunks) => chunks.take(input),
        }
    }
}

impl Chunks {
    fn take(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while *self != Self::Done {
            let Some(byte) = input.get(at) else { break };
            if let Self::Data(left) = self {
                let here = (*left).min((input.len() - at) as u64);
                *left -= here;
                at += usize::try_from(here).map_err(|_| Malformed::Chunk)?;
                if *left == 0 {
                    *self = Self::Size(0);
                }
            } else {
                *self = self.line(*byte)?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn line(&self, byte: u8) -> Result<Self, Malformed> {
        match (self, byte) {
            (Self::Size(size) | Self::Extension(size), b'\n') => match size {
                0 => Ok(Self::Trailers(0)),
                size => Ok(Self::Data(size + 2)),
            },
            (Self::Size(size), b'\r' | b';') => Ok(Self::Extension(*size)),
            (Self::Extension(size), _) => Ok(Self::Extension(*size)),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed::Chunk)?;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
                size.filter(|size| *size < u64::MAX - 2).map(Self::Size).ok_or(Malformed::Chunk)
            }
            (Self::Trailers(0), b'\n') => Ok(Self::Done),
            (Self::Trailers(_), b'\n') => Ok(Self::Trailers(0)),
            (Self::Trailers(length), b'\r') => Ok(Self::Trailers(*length)),
            (Self::Trailers(length), _) => Ok(Self::Trailers(length + 1)),
            (Self::Data(_) | Self::Done, _) => Err(Malformed::Chunk),
        }
    }
}

/// Reads one response after another of a connection without pipelining.
#[derive(Debug, Default)]
pub struct Responses {
    head: Vec<u8>,
    body: Option<(u16, bool, Body)>,
}

/// A response that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The server closes the connection after it.
    pub close: bool,
}

impl Responses {
    /// Takes in what has arrived; gives the response when it is whole.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is of no further use.
    pub fn feed(&mut self, mut input: &[u8]) -> Result<Option<Answer>, Malformed> {
        loop {
            if let Some((status, close, body)) = &mut self.body {
                let taken = body.take(input)?;
                input = input.get(taken..).unwrap_or_default();
                if !body.is_done() {
                    return Ok(None);
                }
                let answer = Answer { status: *status, close: *close };
                self.body = None;
                return if input.is_empty() { Ok(Some(answer)) } else { Err(Malformed::Surplus) };
            }
            if self.head.is_empty()
                && let Some(end) = head_end(input)?
            {
                self.begin(input.get(..end).unwrap_or_default())?;
                input = input.get(end..).unwrap_or_default();
                continue;
            }
            self.head.extend_from_slice(input);
            let Some(end) = head_end(&self.head)? else { return Ok(None) };
            let whole = std::mem::take(&mut self.head);
            self.begin(whole.get(..end).unwrap_or_default())?;
            let consumed = end + input.len() - whole.len();
            input = input.get(consumed..).unwrap_or_default();
        }
    }

    fn begin(&mut self, head: &[u8]) -> Result<(), Malformed> {
        let digits = head.get(9..12).filter(|_| head.starts_with(b"HTTP/1.")).ok_or(Malformed::StartLine)?;
        let status: u16 = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(Malformed::StartLine)?;
        let framing = framing(head);
        if (100..200).contains(&status) {
            return Ok(());
        }
        let body = if matches!(status, 204 | 304) { Some(Body::Bytes(0)) } else { Body::of(framing) };
        self.body = Some((status, framing.close, body.ok_or(Malformed::Length)?));
        Ok(())
    }
}
