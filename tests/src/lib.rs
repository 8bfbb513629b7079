//! What the whole-proxy tests stand on.

pub mod harness;
pub mod naive;
pub mod node;
pub mod oracle;
pub mod real;
pub mod smuggling;
