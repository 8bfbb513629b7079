//! Bytes both ways on a raw connection, whatever carries them: half-close, reset and back-pressure go
//! through as they come. Urgent data stay in line ([`super::inside::prepare`]).

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::Client;

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

/// What has gone through so far, and how much of that was counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    counted: (AtomicU64, AtomicU64),
}

impl Counts {
    /// What is new since this was asked last: from the client, and to it.
    pub(crate) fn news(&self) -> (u64, u64) {
        let new = |now: &AtomicU64, before: &AtomicU64| {
            let now = now.load(Ordering::Relaxed);
            now.saturating_sub(before.swap(now, Ordering::Relaxed))
        };
        (new(&self.up, &self.counted.0), new(&self.down, &self.counted.1))
    }

    /// Everything that [`Counts::news`] told.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.counted.0.load(Ordering::Relaxed), self.counted.1.load(Ordering::Relaxed))
    }

    fn set(&self, both: &Both) {
        self.up.store(both.up.count, Ordering::Relaxed);
        self.down.store(both.down.count, Ordering::Relaxed);
    }
}

/// Carries bytes until both sides have closed, one is reset, or `stop` says why not. Under TLS an end
/// without a word of farewell (close_notify) is a reset: what came before may not be all.
pub(crate) async fn carry(
    mut client: impl Client,
    mut server: impl Client,
    counts: &Counts,
    stop: impl Future<Output = &'static str>,
) -> Carried {
    let mut both = Both::default();
    let end = {
        let mut stop = pin!(stop);
        poll_fn(|cx| {
            let polled = both.poll(cx, &mut client, &mut server);
            counts.set(&both);
            match polled {
                Poll::Ready(end) => Poll::Ready(end),
                Poll::Pending => stop.as_mut().poll(cx).map(End::Cut),
            }
        })
        .await
    };
    if end != End::Closed {
        // A clean close would tell each of them that the other had said everything.
        client.abort();
        server.abort();
    }
    Carried { up: both.up.count, down: both.down.count, end }
}

/// Which end of a direction failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    From,
    To,
}

/// Both directions. One whose receiver is gone ends alone: what the receiver still has to say, which
/// may have come before its reset, is passed on first.
#[derive(Debug, Default)]
struct Both {
    up: Direction,
    down: Direction,
}

impl Both {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut (impl AsyncRead + AsyncWrite + Unpin),
        server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<End> {
        let up = self.up.poll(cx, client, server);
        let down = self.down.poll(cx, server, client);
        match (up, down) {
            (Poll::Ready(Err(Broken::From)), _) => Poll::Ready(End::ClientReset),
            (_, Poll::Ready(Err(Broken::From))) => Poll::Ready(End::ServerReset),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Closed),
            (Poll::Ready(Err(Broken::To)), Poll::Ready(_)) => Poll::Ready(End::ServerReset),
            (Poll::Ready(_), Poll::Ready(Err(Broken::To))) => Poll::Ready(End::ClientReset),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    }
}

/// One direction. A receiver that does not read holds up the sender: no more than one buffer is read
/// ahead of it.
#[derive(Debug, Default)]
struct Direction {
    buffer: Vec<u8>,
    /// What is held in the buffer.
    start: usize,
    end: usize,
    /// Bytes that the receiver has taken.
    count: u64,
    /// The receiver's side may hold bytes back.
    unflushed: bool,
    /// The sender has said everything.
    ended: bool,
    outcome: Option<Result<(), Broken>>,
}

impl Direction {
    /// To its end, and then that end again.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        if let Some(outcome) = self.outcome {
            return Poll::Ready(outcome);
        }
        let outcome = ready!(self.poll_on(cx, from, to));
        self.buffer = Vec::new();
        self.outcome = Some(outcome);
        Poll::Ready(outcome)
    }

    fn poll_on(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_write(cx, to)).map_err(|_| Broken::To)?;
            if self.ended {
                return Pin::new(to).poll_shutdown(cx).map_err(|_| Broken::To);
            }
            match self.poll_read(cx, from) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                // Nothing more for now: what TLS still holds of it goes out.
                Poll::Pending if self.unflushed => {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Broken::To)?;
                    self.unflushed = false;
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Passes on what is held.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while let Some(bytes) = self.buffer.get(self.start..self.end).filter(|bytes| !bytes.is_empty()) {
            let length = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += length;
            self.unflushed = true;
            self.count += u64::try_from(length).unwrap_or(0);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there, into an empty buffer.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; SMALL];
        } else if self.end == self.buffer.len() && self.end < LARGE {
            self.buffer = vec![0; LARGE];
        } else if self.end <= SMALL / 2 && self.buffer.len() > SMALL {
            self.buffer = vec![0; SMALL];
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        (self.start, self.end) = (0, buffer.filled().len());
        self.ended = self.end == 0;
        Poll::Ready(Ok(()))
    }
}
