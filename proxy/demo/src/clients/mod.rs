//! The people on the other side: gets tokens, asks the proxy, and compares with what the
//! tutorial promises.

mod report;
mod table;
mod tokens;

#[cfg(test)]
mod tests;

pub use report::write_report;
pub(crate) use report::write_rows;
pub use table::{Case, Credential, Expected, Outcome, Seen, run, tutorial_table};
pub use tokens::{FromDemoError, Grant, IdpClient, Tokens};

use std::time::Duration;

/// How long any one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why a client could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client cannot be set up (a CA that is no PEM, a broken TLS stack).
    #[error("cannot set up the HTTP client: {0}")]
    Client(reqwest::Error),
    /// No answer.
    #[error("no answer from {url}: {source}")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The identity provider gave no token.
    #[error("{url} answered {status} and no token: {body}")]
    NoToken {
        /// The token endpoint.
        url: String,
        /// Its status.
        status: u16,
        /// The start of its body.
        body: String,
    },
}

/// A client for loopback: no proxy from the environment, no redirects, the given CA alone.
///
/// # Errors
/// [`Error::Client`] when the CA is not PEM.
pub fn http_client(ca_pem: Option<&str>) -> Result<reqwest::Client, Error> {
    let certificates = ca_pem.map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()));
    let certificates = certificates.transpose().map_err(Error::Client)?;
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .tls_certs_only(certificates)
        .build()
        .map_err(Error::Client)
}

/// Status and at most [`MAX_ANSWER`] bytes of the body.
async fn ask(request: reqwest::RequestBuilder, url: &str) -> Result<(u16, Vec<u8>), Error> {
    let failed = |source| Error::NoAnswer { url: url.to_owned(), source };
    let mut response = request.send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let room = MAX_ANSWER.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if room <= chunk.len() {
            break;
        }
    }
    Ok((response.status().as_u16(), body))
}
