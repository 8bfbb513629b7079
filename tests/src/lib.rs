//! What the whole-proxy tests stand on.

pub mod harness;
pub mod oracle;
pub mod real;
