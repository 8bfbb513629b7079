//! The loader against the real kernel: network namespaces, cgroups and a BPF file system of its own.
//! As root: `cargo test -p loader --features root --test root`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod bed;
mod capture;
mod doctor;
mod kills;
mod life;
mod unprivileged;
