//! The loader against the real kernel: network namespaces, cgroups and a BPF file system of its own.
//! As root: `cargo test -p loader --features root --test root`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bed;
mod capture;
mod kills;
mod life;
mod unprivileged;
