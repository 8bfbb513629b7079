//! An HTTP/2 client, one stream at a time, that sends header fields as they are (RFC 9113).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{REPLY_BYTES, Reply, WireError, hpack, limited};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// The largest frame that a peer must take unasked (§4.2).
const FRAME_BYTES: usize = 16_384;
/// Streams per connection before a new one is opened.
const STREAMS: u32 = 2_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A connection that is opened when it is needed, and again when it was closed.
#[derive(Debug)]
pub struct Http2 {
    address: SocketAddr,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    socket: TcpStream,
    buffer: Vec<u8>,
    next_stream: u32,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Http2 {
    /// To that address.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, open: None }
    }

    /// Sends a request (its fields, pseudo-header fields among them) and reads its answer.
    ///
    /// # Errors
    /// [`WireError`]; a stream that is reset counts as closed.
    pub async fn exchange(&mut self, fields: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> Result<Reply, WireError> {
        limited(async {
            if let Some(open) = self.open.take() {
                // As over HTTP/1: an idle connection may be gone. A stream that was reset is an answer.
                match self.over(open, fields, body).await {
                    Err(WireError::Closed(why)) if !why.starts_with("reset") => {}
                    outcome => return outcome,
                }
            }
            let open = Open::connect(self.address).await?;
            self.over(open, fields, body).await
        })
        .await
    }

    async fn over(
        &mut self,
        mut open: Open,
        fields: &[(Vec<u8>, Vec<u8>)],
        body: &[u8],
    ) -> Result<Reply, WireError> {
        let stream = open.next_stream;
        open.next_stream += 2;
        open.socket.write_all(&request(stream, fields, body)).await?;
        let outcome = open.reply(stream).await;
        let usable = match &outcome {
            Ok((_, usable)) => *usable,
            Err(WireError::Closed(why)) => why.starts_with("reset"),
            Err(WireError::Broken(_)) => false,
        };
        if usable && open.next_stream < 2 * STREAMS {
            self.open = Some(open);
        }
        outcome.map(|(reply, _)| reply)
    }
}

fn request(stream: u32, fields: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::encode(&mut block, name, value));
    let mut bytes = Vec::new();
    let mut parts = block.chunks(FRAME_BYTES).peekable();
    let mut kind = HEADERS;
    let mut flags = if body.is_empty() { END_STREAM } else { 0 };
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frame(&mut bytes, kind, flags | last, stream, part);
        (kind, flags) = (CONTINUATION, 0);
    }
    let mut parts = body.chunks(FRAME_BYTES).peekable();
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_STREAM } else { 0 };
        frame(&mut bytes, DATA, last, stream, part);
    }
    bytes
}

fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

impl Open {
    async fn connect(address: SocketAddr) -> Result<Self, WireError> {
        let mut socket = TcpStream::connect(address)
            .await
            .map_err(|error| WireError::Broken(format!("cannot connect to {address}: {error}")))?;
        socket.set_nodelay(true)?;
        let mut bytes = PREFACE.to_vec();
        // No dynamic table, no pushes, large windows.
        let settings = [[0, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0, 4, 0x10, 0, 0, 0]].concat();
        frame(&mut bytes, SETTINGS, 0, 0, &settings);
        frame(&mut bytes, WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]);
        socket.write_all(&bytes).await?;
        Ok(Self { socket, buffer: Vec::new(), next_stream: 1 })
    }

    /// The answer, and whether the connection may be used again.
    async fn reply(&mut self, stream: u32) -> Result<(Reply, bool), WireError> {
        let (mut reply, mut block, mut usable, mut ends) = (Reply::default(), Vec::new(), true, false);
        let mut whole_head = false;
        loop {
            let frame = self.frame().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, &[]).await?,
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, &frame.payload).await?,
                GOAWAY if self.answers(&frame, stream) => usable = false,
                GOAWAY => return Err(WireError::Closed("the connection was given up".to_owned())),
                RST_STREAM if frame.stream == stream => {
                    // After a whole answer it only says that the rest of the request is not wanted.
                    return if ends {
                        Ok((reply, usable))
                    } else {
                        Err(WireError::Closed("reset".to_owned()))
                    };
                }
                HEADERS | CONTINUATION if frame.stream == stream => {
                    ends |= frame.kind == HEADERS && frame.flags & END_STREAM != 0;
                    block.extend_from_slice(&bare(&frame));
                    if frame.flags & END_HEADERS != 0 {
                        whole_head = read_head(&mut reply, &std::mem::take(&mut block))?;
                    }
                }
                DATA if frame.stream == stream => {
                    ends = frame.flags & END_STREAM != 0;
                    reply.body.extend_from_slice(&bare(&frame));
                }
                _ => {}
            }
            if ends && whole_head && block.is_empty() {
                return Ok((reply, usable));
            }
            if reply.body.len() > REPLY_BYTES {
                return Err(WireError::Broken("an answer without end".to_owned()));
            }
        }
    }

    /// Whether a GOAWAY still lets this stream be answered.
    fn answers(&self, frame: &Frame, stream: u32) -> bool {
        let last =
            frame.payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let error = frame.payload.get(4..8).is_some_and(|bytes| bytes != [0; 4]);
        last >= stream && !error
    }

    async fn send(&mut self, kind: u8, flags: u8, payload: &[u8]) -> Result<(), WireError> {
        let mut bytes = Vec::new();
        frame(&mut bytes, kind, flags, 0, payload);
        Ok(self.socket.write_all(&bytes).await?)
    }

    async fn frame(&mut self) -> Result<Frame, WireError> {
        self.fill(FRAME_HEAD).await?;
        let head: Vec<u8> = self.buffer.drain(..FRAME_HEAD).collect();
        let word =
            |from: usize| u32::from_be_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
        let length = usize::try_from(word(0) >> 8).unwrap_or(0);
        self.fill(length).await?;
        let payload = self.buffer.drain(..length).collect();
        Ok(Frame { kind: head[3], flags: head[4], stream: word(5) & 0x7fff_ffff, payload })
    }

    async fn fill(&mut self, length: usize) -> Result<(), WireError> {
        while self.buffer.len() < length {
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(WireError::Closed("end of stream".to_owned()));
            }
        }
        Ok(())
    }
}

/// Whether it is the head of the final answer: 1xx come before it, trailers after.
fn read_head(reply: &mut Reply, block: &[u8]) -> Result<bool, WireError> {
    for (name, value) in hpack::decode(block)? {
        if name == ":status" {
            reply.status = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        } else {
            reply.headers.push((name, value));
        }
    }
    if reply.status < 200 {
        *reply = Reply::default();
        return Ok(false);
    }
    Ok(true)
}

/// A payload without padding and priority.
fn bare(frame: &Frame) -> Vec<u8> {
    let mut payload = frame.payload.clone();
    if frame.kind != CONTINUATION && frame.flags & PADDED != 0 && !payload.is_empty() {
        let padding = usize::from(payload.remove(0));
        payload.truncate(payload.len().saturating_sub(padding));
    }
    if frame.kind == HEADERS && frame.flags & PRIORITY != 0 {
        payload.drain(..payload.len().min(5));
    }
    payload
}
