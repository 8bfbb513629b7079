//! Bytes both ways after an accepted upgrade (WebSocket), with half-close and an idle limit.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// Bytes copied at once.
const BUFFER: usize = 16 * 1024;

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tunnelled {
    /// From the client.
    pub(crate) up: u64,
    /// To the client.
    pub(crate) down: u64,
    /// Nothing moved for too long.
    pub(crate) idle: bool,
}

/// Copies until both sides have closed, one failed, or nothing moved for `idle`.
pub(crate) async fn tunnel<C, U>(client: C, upstream: U, first: &[u8], idle: Duration) -> Tunnelled
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let began = Instant::now();
    let moved = Moved { began, last: AtomicU64::new(0), up: AtomicU64::new(0), down: AtomicU64::new(0) };
    let (client_read, mut client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let both = async {
        if !first.is_empty() {
            client_write.write_all(first).await?;
            client_write.flush().await?;
            moved.count(&moved.down, first.len());
        }
        tokio::try_join!(
            copy(client_read, upstream_write, &moved, &moved.up),
            copy(upstream_read, client_write, &moved, &moved.down),
        )
    };
    let idle = tokio::select! {
        _ = both => false,
        () = moved.idle_for(idle) => true,
    };
    Tunnelled { up: moved.up.load(Ordering::Relaxed), down: moved.down.load(Ordering::Relaxed), idle }
}

struct Moved {
    began: Instant,
    /// Milliseconds after `began`.
    last: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Moved {
    fn count(&self, bytes: &AtomicU64, length: usize) {
        bytes.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    async fn idle_for(&self, limit: Duration) {
        loop {
            let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Moved,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        to.flush().await?;
        moved.count(count, length);
    }
}
