//! The load: one thread, one event loop, the generator's connections and the upstream's in it.
//!
//! A generator that costs as much as the proxies would measure itself. So requests are written out in
//! advance, answers are read no further than to their status and end, and generator and upstream share
//! a loop, so that they wait for the peer and never for each other.

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod hbone;
pub mod http1;
pub mod http2;
pub mod lane;
pub mod reactor;
pub mod schedule;
pub mod secure;
#[cfg(test)]
mod tests;
pub mod upstream;

pub use lane::{Fresh, Lane, Pacing, Protocol, Report, Requests};
pub use reactor::{Hook, LoadError, Reactor};
pub use schedule::Schedule;
pub use secure::Tls;
pub use upstream::{BUNDLE_BYTES, Documents};
