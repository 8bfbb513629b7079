//! An HTTP/1 client that sends bytes as they are.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{REPLY_BYTES, Reply, WireError, limited};

/// A connection that is opened when it is needed, and again when it was closed.
#[derive(Debug)]
pub struct Http1 {
    address: SocketAddr,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Http1 {
    /// To that address.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, open: None }
    }

    /// Sends a request and reads its answer. `head`: the request is a HEAD, whose answer has no body.
    ///
    /// # Errors
    /// [`WireError`].
    pub async fn exchange(&mut self, request: &[u8], head: bool) -> Result<Reply, WireError> {
        limited(async {
            if let Some(open) = self.open.take() {
                // It may have been closed since: then nothing was read, and a fresh one is asked.
                if let Ok(reply) = self.over(open, request, head).await {
                    return Ok(reply);
                }
            }
            let socket = TcpStream::connect(self.address)
                .await
                .map_err(|error| WireError::Broken(format!("cannot connect to {}: {error}", self.address)))?;
            socket.set_nodelay(true)?;
            self.over(Open { socket, buffer: Vec::new() }, request, head).await
        })
        .await
    }

    async fn over(&mut self, mut open: Open, request: &[u8], head: bool) -> Result<Reply, WireError> {
        // A refused request may be answered before all of it is taken.
        let written = open.socket.write_all(request).await;
        let (reply, stays) = match open.reply(head).await {
            Ok(read) => read,
            Err(WireError::Closed(why)) => {
                return Err(WireError::Closed(written.err().map_or(why, |e| e.to_string())));
            }
            Err(broken) => return Err(broken),
        };
        if stays {
            self.open = Some(open);
        }
        Ok(reply)
    }
}

impl Open {
    /// The answer, and whether the connection may be used again.
    async fn reply(&mut self, head: bool) -> Result<(Reply, bool), WireError> {
        let mut reply = self.head().await?;
        while matches!(reply.status, 100 | 102..=199) {
            reply = self.head().await?;
        }
        let mut stays = !reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        if head || matches!(reply.status, 101 | 204 | 304) {
            return Ok((Reply { ..reply.clone() }, stays && reply.status != 101));
        }
        let chunked =
            reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        let length =
            reply.header("content-length").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if chunked {
            self.chunks(&mut reply.body).await?;
        } else if let Some(length) = length {
            self.fill(length).await?;
            reply.body = self.buffer.drain(..length).collect();
        } else {
            stays = false;
            while self.more().await.is_ok() {}
            reply.body = std::mem::take(&mut self.buffer);
        }
        Ok((reply, stays))
    }

    async fn head(&mut self) -> Result<Reply, WireError> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let broken = || WireError::Broken("an answer that is no HTTP".to_owned());
        let mut lines = lines.iter();
        let first = String::from_utf8_lossy(lines.next().ok_or_else(broken)?).into_owned();
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(broken)?;
        let field = |line: &Vec<u8>| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii().to_vec();
            (String::from_utf8_lossy(name).to_ascii_lowercase(), value)
        };
        Ok(Reply { status, headers: lines.map(field).collect(), body: Vec::new() })
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> Result<(), WireError> {
        loop {
            let line = self.line().await?;
            let digits = String::from_utf8_lossy(&line).into_owned();
            let length = usize::from_str_radix(digits.trim(), 16)
                .map_err(|_| WireError::Broken(format!("a chunk of length {digits:?}")))?;
            self.fill(length).await?;
            body.extend(self.buffer.drain(..length));
            // The line that ends the chunk, or the trailers.
            while !self.line().await?.is_empty() {}
            if length == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, WireError> {
        let mut from = 0;
        loop {
            if let Some(at) = self.buffer[from..].windows(2).position(|two| two == b"\r\n") {
                let line = self.buffer.drain(..from + at).collect();
                self.buffer.drain(..2);
                return Ok(line);
            }
            from = self.buffer.len().saturating_sub(1);
            self.more().await?;
        }
    }

    async fn fill(&mut self, length: usize) -> Result<(), WireError> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), WireError> {
        if self.buffer.len() > REPLY_BYTES {
            return Err(WireError::Broken("an answer without end".to_owned()));
        }
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(WireError::Closed("end of stream".to_owned())),
            _ => Ok(()),
        }
    }
}
