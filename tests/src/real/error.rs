//! What can go wrong with a real component.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// The result of a call to a real component.
pub type Result<T> = std::result::Result<T, RealError>;

/// A real component could not be had, or did not do what was asked.
#[derive(Debug, Error)]
pub enum RealError {
    /// `cargo xtask provision` has not been run, or the sources have changed since.
    #[error("{0}")]
    NotProvisioned(String),
    /// The program could not be started, or a file could not be read or written.
    #[error("input or output failed: {0}")]
    Io(#[from] std::io::Error),
    /// A file of the tree could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended before it was ready.
    #[error("{name} ended ({status}) before it was ready; the end of its log:\n{log}")]
    Ended {
        /// The component's name.
        name: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        log: String,
    },
    /// A program ran, and did not become ready (or did not stop) in time.
    #[error("{name} was not {wanted} after {waited:?}; the end of its log:\n{log}")]
    TooSlow {
        /// The component's name.
        name: String,
        /// `ready`, `stopped`, …
        wanted: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// The last lines it wrote.
        log: String,
    },
    /// A call to a component failed on the way.
    #[error("a call failed: {0}")]
    Call(#[from] reqwest::Error),
    /// A component answered a call with another status than the one that means success.
    #[error("{what} was answered with {status}: {body}")]
    Refused {
        /// What was asked.
        what: String,
        /// The status of the answer.
        status: u16,
        /// The beginning of its body.
        body: String,
    },
    /// An answer or a report that is not of the shape it should have.
    #[error("{0}")]
    Shape(String),
}
