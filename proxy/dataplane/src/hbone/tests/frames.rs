//! Frames by hand (RFC 9113 §4, §6), for clients that do not keep to HTTP/2.

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) struct Frames {
    pub(super) io: TlsStream<TcpStream>,
}

/// A frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing (RFC 7541 §6.2.2), shorter than 127 bytes each.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

pub(super) fn connect(stream: u32, authority: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[(":method", "CONNECT"), (":authority", authority)]))
}

impl Frames {
    /// After both prefaces.
    pub(super) async fn over(io: TlsStream<TcpStream>) -> Self {
        let mut frames = Self { io };
        frames.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.say(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        frames
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    pub(super) async fn headers(&mut self, stream: u32, fields: &[(&str, &str)], whole: bool) {
        let flags = if whole { END_HEADERS } else { 0 };
        self.say(&frame(HEADERS, flags, stream, &block(fields))).await.unwrap();
    }

    /// The next frame; `None`: the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        in_time(self.io.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        in_time(self.io.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], stream, payload })
    }

    /// The status of a stream's answer; `None`: it was reset, or the connection ended.
    pub(super) async fn answer(&mut self, stream: u32) -> Option<u16> {
        while let Some(frame) = self.next().await {
            match (frame.kind, frame.stream == stream) {
                // Indexed from the static table (RFC 7541 appendix A), or a literal with its name.
                (HEADERS, true) => return Some(status(&frame.payload)),
                (RESET, true) | (GOAWAY, _) => return None,
                _ => {}
            }
        }
        None
    }
}

pub(super) fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        // The static table's `:status` with a value of three digits, plain or by Huffman's code.
        [0x08 | 0x48, rest @ ..] => match rest {
            [3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
