//! mTLS at a workload's port of the real binary: who is refused and why, who is who, and what changes
//! while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad;
mod embedded;
mod gateway;
mod hbone;
mod live;
mod modes;
mod outbound;
mod policies;
mod resumption;
mod rotation;
mod stand;
mod tutorial;
