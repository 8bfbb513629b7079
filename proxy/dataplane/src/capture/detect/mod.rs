//! What a client speaks, told from its first bytes within one bounded wait.
//!
//! Servers read requests more leniently than any standard has it: after empty lines (RFC 9112 §2.2),
//! after control characters, with runs of spaces, with methods nobody has heard of. So HTTP is
//! whatever could be read as a request line; raw bytes are only what could not.

mod hello;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use crate::Limits;
use hello::Hello;

pub(crate) use hello::Asked;

/// Bytes looked at. A first line that is longer, and has nothing in it that no request line has, is
/// HTTP's to refuse.
const LOOK: usize = 8 * 1024;
/// Bytes of a TLS ClientHello. Those of today have 2 KiB.
const HELLO: usize = 64 * 1024;
/// As good as without end: an hour's silence is an hour's, and then asked about again.
const FOREVER: Duration = Duration::from_secs(3600);
/// Read at once.
const CHUNK: usize = 4 * 1024;

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// HTTP, or what could be read as such.
    Http,
    /// TLS, and what is asked for.
    Tls(Asked),
    /// It began as TLS and is none.
    BadTls,
    /// Neither.
    Bytes,
    /// Nothing, or nothing but empty lines: the server may be the one to speak first. `ended`: nothing
    /// will follow.
    Silence {
        /// The client has closed its side.
        ended: bool,
    },
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For the first byte that is no empty line's.
    silence: Duration,
    /// For a line that may be a request's, once it has begun.
    line: Duration,
    /// For a whole ClientHello, once it has begun.
    hello: Duration,
}

impl Waits {
    pub(super) fn new(limits: &Limits, detect_timeout_ms: u64) -> Self {
        let line = Duration::from_millis(detect_timeout_ms);
        Self { silence: line, line, hello: Duration::from_millis(limits.handshake_timeout_ms) }
    }

    /// The same, for as long as it takes to begin.
    pub(super) fn patiently(self) -> Self {
        self.silent_for(FOREVER)
    }

    /// The same, but for so long to begin.
    pub(super) fn silent_for(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Where TLS is declared its client speaks first.
    pub(super) fn for_tls(limits: &Limits) -> Self {
        let wait = Duration::from_millis(limits.handshake_timeout_ms);
        Self { silence: wait, line: wait, hello: wait }
    }
}

/// Reads into `first` until the protocol can be told, or the wait is over.
///
/// # Errors
/// The connection failed, or a ClientHello took too long.
pub(super) async fn listen(
    wire: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    waits: Waits,
) -> io::Result<Told> {
    hear(wire, first, waits, look).await
}

/// The same, where nothing but TLS of the mesh is to be told from anything else: that is [`Told::Bytes`].
///
/// # Errors
/// As [`listen`]'s.
pub(super) async fn listen_for_tls(
    wire: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    waits: Waits,
) -> io::Result<Told> {
    hear(wire, first, waits, |bytes| match bytes {
        [] => Seen::Silence,
        [22] | [22, 3, ..] => look(bytes),
        _ => Seen::Bytes,
    })
    .await
}

async fn hear(
    wire: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    waits: Waits,
    look: impl Fn(&[u8]) -> Seen,
) -> io::Result<Told> {
    let (mut began, mut silent) = (Instant::now(), true);
    loop {
        let seen = look(first);
        if silent && seen != Seen::Silence {
            (began, silent) = (Instant::now(), false);
        }
        let deadline = match seen {
            Seen::Http => return Ok(Told::Http),
            Seen::Bytes => return Ok(Told::Bytes),
            Seen::Tls(Hello::Whole(asked)) => return Ok(Told::Tls(asked)),
            Seen::Tls(Hello::Malformed) => return Ok(Told::BadTls),
            Seen::Tls(Hello::Partial) => began + waits.hello,
            Seen::Silence => began + waits.silence,
            Seen::Line => began + waits.line,
        };
        first.reserve(CHUNK);
        let ended = match timeout_at(deadline, wire.read_buf(first)).await {
            Ok(Ok(0)) => true,
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => return Err(error),
            Err(_) => false,
        };
        return Ok(match seen {
            Seen::Silence => Told::Silence { ended },
            // Whatever becomes of it, it may become a request.
            Seen::Line if !ended => Told::Http,
            // Whoever dawdles over its greeting must not be without a name for it.
            Seen::Tls(_) if !ended => return Err(io::ErrorKind::TimedOut.into()),
            Seen::Tls(_) => Told::BadTls,
            _ => Told::Bytes,
        });
    }
}

/// What the bytes so far tell.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Http,
    Tls(Hello),
    Bytes,
    /// Nothing but what servers skip before a request line.
    Silence,
    /// The beginning of what may be a request line.
    Line,
}

fn look(bytes: &[u8]) -> Seen {
    if let [22] | [22, 3, ..] = bytes {
        // Content type handshake, legacy version 3.x (RFC 8446 §5.1).
        return Seen::Tls(hello::read(bytes, HELLO));
    }
    let skipped = bytes.iter().take_while(|byte| is_skipped(**byte)).count();
    let line = bytes.get(skipped..).unwrap_or_default();
    if line.is_empty() {
        return if bytes.len() < LOOK { Seen::Silence } else { Seen::Bytes };
    }
    let length = line.iter().take_while(|byte| is_token(**byte)).count();
    let Some(rest) = line.get(length..).filter(|_| length > 0) else { return Seen::Bytes };
    let spaces = rest.iter().take_while(|byte| is_space(**byte)).count();
    let target = rest.get(spaces..).unwrap_or_default();
    match (rest.is_empty(), spaces, target.first()) {
        (true, ..) => if_short(bytes, Seen::Line),
        (false, 0, _) => Seen::Bytes,
        (false, _, None) => if_short(bytes, Seen::Line),
        (false, _, Some(b'/' | b'*' | b'\\')) => Seen::Http,
        (false, _, Some(_)) => version(bytes, target),
    }
}

/// A method, spaces, and a target in a form that other protocols' words have too (`EHLO host`,
/// `SSH-2.0-x y`): a request names its version at the end of the line.
fn version(bytes: &[u8], target: &[u8]) -> Seen {
    let end = target.iter().position(|byte| *byte == b'\n');
    let line = target.get(..end.unwrap_or(target.len())).unwrap_or_default();
    if line.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r')) {
        return Seen::Bytes;
    }
    let named = line
        .windows(5)
        .any(|window| window.eq_ignore_ascii_case(b"HTTP/") || window.eq_ignore_ascii_case(b"http:"));
    match (named, end) {
        (true, _) => Seen::Http,
        (false, Some(_)) => Seen::Bytes,
        (false, None) => if_short(bytes, Seen::Line),
    }
}

/// More may follow; after too much it is HTTP's to say that its line is too long.
fn if_short(bytes: &[u8], seen: Seen) -> Seen {
    if bytes.len() < LOOK { seen } else { Seen::Http }
}

/// What lenient servers skip before a request line: empty lines, spaces, control characters.
fn is_skipped(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// RFC 9112 §3: what lenient parsers take for the space of a request line, a bare CR among it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
