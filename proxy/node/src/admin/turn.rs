//! The admin address of two proxies of one node: while the second takes over the pods, the first has
//! it still; they serve it in turn.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// The address, ours or another's still.
pub(crate) enum Turn {
    Ours(TcpListener, SocketAddr),
    Taken(SocketAddr),
}

impl Turn {
    /// Binds the address. Where `in_turn`, one that is taken is waited for later.
    ///
    /// # Errors
    /// It is taken, or not this host's.
    pub(crate) async fn bind(address: SocketAddr, in_turn: bool) -> io::Result<Self> {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let local = listener.local_addr()?;
                Ok(Self::Ours(listener, local))
            }
            Err(error) if in_turn && error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "the admin address is taken; it is served once it is free");
                Ok(Self::Taken(address))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(_, address) | Self::Taken(address) => *address,
        }
    }

    /// The listener, once it is ours; none when it is time to stop.
    pub(crate) async fn listener(self, stop: &CancellationToken) -> Option<TcpListener> {
        let address = match self {
            Self::Ours(listener, _) => return Some(listener),
            Self::Taken(address) => address,
        };
        loop {
            if let Ok(listener) = TcpListener::bind(address).await {
                tracing::info!(%address, "the admin address is ours");
                return Some(listener);
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_taken_address_is_an_error_or_waited_for() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        assert!(Turn::bind(address, false).await.is_err());
        let second = Turn::bind(address, true).await.unwrap();
        assert_eq!(second.address(), address);
        let stop = CancellationToken::new();
        let (listener, ()) = tokio::join!(second.listener(&stop), async {
            tokio::time::sleep(AGAIN * 2).await;
            drop(first);
        });
        assert_eq!(listener.unwrap().local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_until_the_end() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = Turn::bind(first.local_addr().unwrap(), true).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(second.listener(&stop).await.is_none());
    }
}
