//! Throw-away certificates: an [`Authority`] that signs [`Leaf`] certificates, as PEM and DER,
//! and files that only their owner can read.
//!
//! For demos, tests and the README's TLS section. Nothing here is meant for production, and no
//! key that it makes is ever committed. The authority's own key stays in memory unless a caller
//! asks for it in so many words ([`Authority::key_pem_for_safekeeping`]).

mod authority;
mod files;
mod odd;
mod request;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Intermediate, Leaf, self_signed};
pub use files::{Written, write_private, write_public};
pub use odd::{KeyUse, OddIssuer, OddRequest, odd_self_signed};
pub use request::{KeyKind, LeafRequest, Purpose, Validity};

use std::path::PathBuf;

/// What can go wrong while minting or writing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key or the certificate could not be made (bad key material, unsupported algorithm).
    #[error("cannot mint the certificate of {name}: {source}")]
    Mint {
        /// The common name asked for.
        name: String,
        /// What the certificate library said.
        source: rcgen::Error,
    },
    /// A subject alternative name that no certificate can carry.
    #[error("{value:?} is not a {kind}: {reason}")]
    Name {
        /// What it was meant to be: `DNS name` or `SPIFFE ID`.
        kind: &'static str,
        /// The text given.
        value: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A leaf needs at least one name by which a peer can recognise it.
    #[error("a leaf certificate needs at least one DNS name, IP address or SPIFFE ID")]
    NoName,
    /// The end is not after the beginning, or lies beyond year 9999 (RFC 5280, 4.1.2.5).
    #[error("the validity is empty or outside of the years that a certificate can state")]
    Validity,
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
