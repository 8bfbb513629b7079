//! The server: asked in lines, it answers in lines; asked in HTTP, in HTTP.
//!
//! | line | answer |
//! |---|---|
//! | `who` | `NAME PEER LOCAL` |
//! | `source N` | N bytes of the pattern, then the end |
//! | `count` | reads to the end; then `count BYTES ok`, or `wrong` where it was not the pattern |
//! | `stall` | reads no more |
//! | `reset` | a reset |
//! | anything else | the line itself |

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{Outcome, pattern, say};

const BACKLOG: u32 = 4096;
const LINE_MAX: u64 = 8 * 1024;
const CHUNK: usize = 64 * 1024;
const HEADERS_MAX: usize = 64 * 1024;
/// How long one that does not read stays.
const STALL: Duration = Duration::from_secs(600);
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves `port` on every address, `inner` on the loopback addresses alone; on the port after that, on
/// every address, one who speaks first, and on the next the same as on `port`.
pub async fn run(name: &str, port: u16, inner: Option<u16>) -> Outcome<()> {
    let every = |port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let mut tasks = vec![tokio::spawn(accept(listen(every(port))?, name.to_owned(), false))];
    if let Some(inner) = inner {
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, inner)), (Ipv6Addr::LOCALHOST, inner).into()] {
            tasks.push(tokio::spawn(accept(listen(address)?, name.to_owned(), false)));
        }
        tasks.push(tokio::spawn(accept(listen(every(inner + 1))?, name.to_owned(), true)));
        tasks.push(tokio::spawn(accept(listen(every(inner + 2))?, name.to_owned(), false)));
    }
    say("ready");
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// An unspecified IPv6 address hears IPv4 as well.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, name: String, first: bool) {
    loop {
        match listener.accept().await {
            Ok((mut stream, peer)) => {
                let name = name.clone();
                tokio::spawn(async move {
                    // A client that goes away is its own affair.
                    if !first || stream.write_all(format!("hello {name}\n").as_bytes()).await.is_ok() {
                        let _ = answer(stream, peer, &name).await;
                    }
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(stream: TcpStream, peer: SocketAddr, name: &str) -> io::Result<()> {
    let local = stream.local_addr()?;
    let who = format!("{name} {} {}", plain(peer), plain(local));
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if (&mut stream).take(LINE_MAX).read_line(&mut line).await? == 0 {
            return stream.shutdown().await;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["who"] => stream.write_all(format!("{who}\n").as_bytes()).await?,
            ["source", bytes] => return source(stream, bytes.parse().unwrap_or(0)).await,
            ["count"] => return count(stream).await,
            ["stall"] => {
                tokio::time::sleep(STALL).await;
                return Ok(());
            }
            ["reset"] => {
                stream.get_ref().set_zero_linger()?;
                return Ok(());
            }
            [method, path, "HTTP/1.1"] => {
                let (method, path) = ((*method).to_owned(), (*path).to_owned());
                if http(&mut stream, &who, &method, &path).await? {
                    return stream.shutdown().await;
                }
            }
            _ => stream.write_all(line.as_bytes()).await?,
        }
    }
}

/// IPv4 as IPv4, whatever the socket.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One request without a body; the answer tells what arrived, below `/headers` each header too. Whether it
/// was the last one.
async fn http(stream: &mut BufReader<TcpStream>, who: &str, method: &str, path: &str) -> io::Result<bool> {
    let mut last = false;
    let mut told = format!("{who} {method} {path}\n");
    loop {
        let mut line = String::new();
        if stream.take(LINE_MAX).read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            break;
        }
        last |= line.to_ascii_lowercase().starts_with("connection: close");
        if path.starts_with("/headers") && told.len() < HEADERS_MAX {
            told += &line;
        }
    }
    let body = told;
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    Ok(last)
}

async fn source(mut stream: BufReader<TcpStream>, bytes: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        let until = bytes.min(sent + CHUNK as u64);
        let chunk: Vec<u8> = (sent..until).map(pattern).collect();
        stream.write_all(&chunk).await?;
        sent = until;
    }
    stream.shutdown().await
}

async fn count(mut stream: BufReader<TcpStream>) -> io::Result<()> {
    let (mut bytes, mut right) = (0_u64, true);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        for byte in chunk.iter().take(read) {
            right &= *byte == pattern(bytes);
            bytes += 1;
        }
    }
    let verdict = if right { "ok" } else { "wrong" };
    stream.write_all(format!("count {bytes} {verdict}\n").as_bytes()).await?;
    stream.shutdown().await
}
