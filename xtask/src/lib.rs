//! What `cargo xtask` does, as a library, so that the tests ask the same code where the real parts lie.

pub mod bench;
pub mod bpf;
pub mod command;
pub mod fuzz;
pub mod provision;
pub mod suite;
