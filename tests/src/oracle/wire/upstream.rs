//! A server that answers each request with what reached it.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::Reply;

/// The header of the answer that tells how many of its body's bytes are the request's head.
const HEAD_BYTES: &str = "x-recorded-head-bytes";
/// The header that holds the request's head in base64: an answer to HEAD has no body, and one that refuses an
/// upgrade may lose it.
const HEAD: &str = "x-recorded-head";

/// A running recorder. Dropping it ends it.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// A request as it reached the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The request target, with bytes beyond ASCII as Latin-1.
    pub target: String,
    /// Names in lower case, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without its chunks.
    pub body: Vec<u8>,
}

impl Upstream {
    /// Starts one on a port of loopback.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket));
            }
        });
        Ok(Self { address, task })
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorded {
    /// What a reply says was recorded; `None` where it is no answer of the upstream's.
    #[must_use]
    pub fn of(reply: &Reply) -> Option<Self> {
        let length: usize = std::str::from_utf8(reply.header(HEAD_BYTES)?).ok()?.parse().ok()?;
        match reply.header(HEAD) {
            Some(head) => Self::read(&STANDARD.decode(head).ok()?, &[]),
            None => {
                let (head, body) = reply.body.split_at_checked(length)?;
                Self::read(head, body)
            }
        }
    }

    fn read(head: &[u8], body: &[u8]) -> Option<Self> {
        let mut lines =
            head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first: String = lines.next()?.iter().copied().map(char::from).collect();
        let (method, rest) = first.split_once(' ')?;
        let (target, _) = rest.rsplit_once(' ')?;
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            (name, line.get(colon + 1..).unwrap_or_default().trim_ascii().to_vec())
        });
        let headers = headers.collect();
        Some(Self { method: method.to_owned(), target: target.to_owned(), headers, body: body.to_vec() })
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }
}

async fn serve(mut socket: TcpStream) {
    let mut buffer = Vec::new();
    while let Some((answer, last)) = answer(&mut socket, &mut buffer).await {
        if socket.write_all(&answer).await.is_err() || last {
            return;
        }
    }
}

/// Reads a request, and gives the answer to it, and whether it is the last one of its connection.
async fn answer(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(socket, buffer).await?;
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let mut request = Recorded::read(&head, &[])?;
    let length =
        request.header("content-length").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let upgrade = request.header("upgrade").is_some();
    if upgrade {
        // What follows belongs to a protocol that is not taken up: its end is not waited for.
    } else if request.header("transfer-encoding").is_some() {
        request.body = chunks(socket, buffer).await?;
    } else if let Some(length) = length {
        fill(socket, buffer, length).await?;
        request.body = buffer.drain(..length).collect();
    }
    let length = head.len() + request.body.len();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\n{HEAD_BYTES}: {}\r\ncontent-length: {length}\r\n", head.len());
    if request.method == "HEAD" || upgrade {
        answer += &format!("{HEAD}: {}\r\n", STANDARD.encode(&head));
    }
    if upgrade {
        answer += "connection: close\r\n";
    }
    answer += "\r\n";
    if request.method == "HEAD" {
        return Some((answer.into_bytes(), upgrade));
    }
    Some(([answer.as_bytes(), &head, &request.body].concat(), upgrade))
}

async fn chunks(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = line(socket, buffer).await?;
        let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
        fill(socket, buffer, length).await?;
        body.extend(buffer.drain(..length));
        while !self::line(socket, buffer).await?.is_empty() {}
        if length == 0 {
            return Some(body);
        }
    }
}

async fn line(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffer.windows(2).position(|two| two == b"\r\n") {
            let line = buffer.drain(..at).collect();
            buffer.drain(..2);
            return Some(line);
        }
        more(socket, buffer).await?;
    }
}

async fn fill(socket: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<()> {
    while buffer.len() < length {
        more(socket, buffer).await?;
    }
    Some(())
}

async fn more(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(buffer).await {
        Ok(read) if read > 0 => Some(()),
        _ => None,
    }
}
