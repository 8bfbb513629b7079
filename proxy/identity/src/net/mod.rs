//! One bounded GET of a JSON document from an identity provider.
//!
//! Written on hyper itself, because we connect to the very address that was checked (no second
//! resolution to rebind), to `connectTo` with its port, over one connection that ends with the
//! answer; redirects, proxies of the environment and compression do not exist here.

pub(crate) mod address;
mod get;
pub(crate) mod tls;
pub(crate) mod url;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::sync::OnceCell;

pub(crate) use self::{
    get::{Answer, Document, GetError, Validators},
    url::Url,
};

/// Limits of a fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GetLimits {
    /// Per address.
    pub(crate) connect: Duration,
    /// Of a document.
    pub(crate) bytes: usize,
}

/// How documents of one provider are fetched.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) connect_to: Option<SocketAddr>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) limits: GetLimits,
    /// The system's authorities, loaded once for all providers, when one first needs them.
    pub(crate) system: Arc<OnceCell<Arc<ClientConfig>>>,
}
