//! gRPC with those who hand out certificates: one bounded connection, and the messages of both services.

mod chain;
mod link;
pub(super) mod messages;
#[cfg(test)]
pub(super) mod testing;

pub(super) use chain::ordered;
pub(super) use link::{Call, Link, LinkError};
