//! Bytes both ways on a raw TCP connection: half-close, reset and back-pressure go through as they
//! come. Urgent data stay in line ([`super::inside::prepare`]).

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Bytes held in each direction: of a connection that says little, and at most.
const SMALL: usize = 4 * 1024;
const LARGE: usize = 64 * 1024;

/// How a raw connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// The client reset it.
    ClientReset,
    /// The server did.
    ServerReset,
    /// We did, for this reason.
    Cut(&'static str),
}

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    /// From the client.
    pub(crate) up: u64,
    /// To the client.
    pub(crate) down: u64,
    pub(crate) end: End,
}

/// Carries bytes until both sides have closed, one is reset, or `stop` says why not. `first` was read
/// from the client already.
pub(crate) async fn carry(
    mut client: TcpStream,
    first: &[u8],
    mut server: TcpStream,
    stop: impl Future<Output = &'static str>,
) -> Carried {
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let end = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let upwards = copy(client_read, server_write, first, &up);
        let downwards = copy(server_read, client_write, &[], &down);
        tokio::select! {
            end = both(upwards, downwards) => end,
            why = stop => End::Cut(why),
        }
    };
    if end != End::Closed {
        // A clean close would tell each of them that the other had said everything.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
    Carried { up: up.load(Ordering::Relaxed), down: down.load(Ordering::Relaxed), end }
}

/// Which end of a direction failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    From,
    To,
}

/// Both directions. One whose receiver is gone ends alone: what the receiver still has to say, which
/// may have come before its reset, is passed on first.
async fn both(
    up: impl Future<Output = Result<(), Broken>>,
    down: impl Future<Output = Result<(), Broken>>,
) -> End {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut up_ended, mut down_ended) = (None, None);
    loop {
        tokio::select! {
            ended = &mut up, if up_ended.is_none() => up_ended = Some(ended),
            ended = &mut down, if down_ended.is_none() => down_ended = Some(ended),
        }
        match (up_ended, down_ended) {
            (Some(Err(Broken::From)), _) => return End::ClientReset,
            (_, Some(Err(Broken::From))) => return End::ServerReset,
            (Some(Ok(())), Some(Ok(()))) => return End::Closed,
            (Some(Err(Broken::To)), Some(_)) => return End::ServerReset,
            (Some(_), Some(Err(Broken::To))) => return End::ClientReset,
            (None, _) | (_, None) => {}
        }
    }
}

/// One direction, to its end. A receiver that does not read holds up the sender: no more than one
/// buffer is read ahead of it.
async fn copy(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    first: &[u8],
    count: &AtomicU64,
) -> Result<(), Broken> {
    let add = |length: usize| count.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
    if !first.is_empty() {
        to.write_all(first).await.map_err(|_| Broken::To)?;
        add(first.len());
    }
    let mut buffer = vec![0; SMALL];
    loop {
        let length = read(&from, &mut buffer).await.map_err(|_| Broken::From)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return to.shutdown().await.map_err(|_| Broken::To);
        };
        to.write_all(bytes).await.map_err(|_| Broken::To)?;
        add(length);
        if length == buffer.len() && length < LARGE {
            buffer = vec![0; LARGE];
        } else if length <= SMALL / 2 && buffer.len() > SMALL {
            buffer = vec![0; SMALL];
        }
    }
}

/// What is there. Not by `AsyncRead`, which takes a buffer that was not filled for the end of what has
/// come and waits for more to come: a read ends at the mark of urgent data, with more behind it.
async fn read(from: &ReadHalf<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}
