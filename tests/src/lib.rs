//! What the whole-proxy tests stand on.

pub mod harness;
pub mod real;
