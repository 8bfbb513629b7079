//! What the tests of capture stand on: pods with real programs in them, the agent and the proxy as
//! processes of their own, and an eye on the wire. All of it blocking: a test is a sequence of steps.

mod attacks;
mod error;
mod program;
mod sniffer;
mod stage;

pub use attacks::{Attacks, Attempt, python};
pub use error::{Error, Result};
pub use program::{Program, eventually, in_pod};
pub use sniffer::{CLIENT_PORTS, Sniffer};
pub use stage::{Actor, HTTP, INNER, LINES, Options, SOON, Stage, uid};
