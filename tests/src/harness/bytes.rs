//! A server of raw bytes, and a client's half of the same: a known pattern, counted to the last byte.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

/// The pattern repeats after a prime number of bytes, so that a block left out or told twice is seen.
const PERIOD: usize = 251;
/// Bytes written at once.
const BLOCK: usize = PERIOD * 256;
/// Ends of connections that nobody has asked for yet.
const ENDS: usize = 1024;

/// What a [`ByteServer`] does with each connection.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Sends so many bytes at once and ends its half, then reads the other to its end.
    EndsFirst(u64),
    /// Reads to the end, then sends so many bytes and ends.
    EndsLast(u64),
    /// Says this at once, as PostgreSQL's or a mail server might, then sends back what it gets.
    Greets(&'static [u8]),
}

/// A running server of bytes on loopback. Dropping it ends it.
#[derive(Debug)]
pub struct ByteServer {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    ends: mpsc::Receiver<io::Result<u64>>,
    task: JoinHandle<()>,
}

impl ByteServer {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(manner: Manner) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let (sender, ends) = mpsc::channel(ENDS);
        let task = tokio::spawn(serve(listener, manner, Arc::clone(&connections), sender));
        Ok(Self { address, connections, ends, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for the end of a connection: how many bytes of the pattern it brought.
    ///
    /// # Errors
    /// How the connection ended otherwise.
    pub async fn ended(&mut self) -> io::Result<u64> {
        self.ends.recv().await.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }
}

impl Drop for ByteServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    manner: Manner,
    connections: Arc<AtomicU64>,
    ends: mpsc::Sender<io::Result<u64>>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::SeqCst);
        let ends = ends.clone();
        tokio::spawn(async move {
            let end = converse(socket, manner).await;
            let _ = ends.send(end).await;
        });
    }
}

async fn converse(mut socket: TcpStream, manner: Manner) -> io::Result<u64> {
    match manner {
        Manner::EndsFirst(bytes) => {
            send(&mut socket, bytes).await?;
            receive(&mut socket).await
        }
        Manner::EndsLast(bytes) => {
            let got = receive(&mut socket).await?;
            send(&mut socket, bytes).await?;
            Ok(got)
        }
        Manner::Greets(greeting) => {
            socket.write_all(greeting).await?;
            let (mut reader, mut writer) = socket.split();
            let echoed = tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            Ok(echoed)
        }
    }
}

/// Sends so many bytes of the pattern, and ends this half.
///
/// # Errors
/// When the other side takes no more.
pub async fn send(io: &mut (impl AsyncWrite + Unpin), bytes: u64) -> io::Result<()> {
    let block = pattern(BLOCK);
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        io.write_all(block.get(..length).unwrap_or_default()).await?;
        left -= length as u64;
    }
    io.shutdown().await
}

/// Reads to the end, and gives how many bytes came.
///
/// # Errors
/// When they do not follow the pattern, or the connection ends otherwise than by its end.
pub async fn receive(io: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    // From any place within it on there is a block of it.
    let expected = pattern(BLOCK + PERIOD);
    let mut buffer = vec![0_u8; BLOCK];
    let (mut total, mut place) = (0_u64, 0);
    loop {
        let length = io.read(&mut buffer).await?;
        if length == 0 {
            return Ok(total);
        }
        if buffer.get(..length) != expected.get(place..place + length) {
            return Err(io::Error::other(format!("the {length} bytes from {total} on are others")));
        }
        total += length as u64;
        place = (place + length) % PERIOD;
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % PERIOD).unwrap_or_default()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_lost_or_told_twice_is_seen() {
        let mut whole = Vec::new();
        send(&mut whole, 3 * BLOCK as u64 + 7).await.unwrap();
        assert_eq!(receive(&mut whole.as_slice()).await.unwrap(), whole.len() as u64);
        let mut lost = whole.clone();
        lost.remove(BLOCK + 5);
        assert!(receive(&mut lost.as_slice()).await.is_err());
        whole.splice(0..0, [0]);
        assert!(receive(&mut whole.as_slice()).await.is_err());
    }
}
