//! Bytes to a proxy, and what came of them: clients that send what no well-behaved library would.

mod hpack;
mod http1;
mod http2;
mod upstream;

use std::time::Duration;

pub use http1::Http1;
pub use http2::Http2;
pub use upstream::{Recorded, Upstream};

/// How long one exchange may take. A machine under load is slow; nothing here depends on speed.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Longest answer that is read.
const REPLY_BYTES: usize = 8 * 1024 * 1024;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in lower case, values as received.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }
}

/// No whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The connection was closed, or reset, without an answer: why, as far as it was told.
    #[error("closed: {0}")]
    Closed(String),
    /// Nobody listens, or what came is no HTTP: the test cannot go on.
    #[error("{0}")]
    Broken(String),
}

impl From<std::io::Error> for WireError {
    fn from(error: std::io::Error) -> Self {
        Self::Closed(error.to_string())
    }
}

/// Runs an exchange within its limit.
async fn limited<T>(exchange: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    match tokio::time::timeout(EXCHANGE_LIMIT, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(WireError::Broken(format!("no answer within {EXCHANGE_LIMIT:?}"))),
    }
}
