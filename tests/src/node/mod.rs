//! What the tests of capture stand on: pods with real programs in them, the agent and the proxy as
//! processes of their own, and an eye on the wire. All of it blocking: a test is a sequence of steps.

mod actor;
mod attacks;
mod cluster;
mod datamesh;
mod error;
mod packet;
mod postgres;
mod program;
mod sniffer;
mod stage;
mod stream;
mod wire;

pub use actor::{Actor, uid};
pub use attacks::{Attacks, Attempt, python};
pub use cluster::Cluster;
pub use datamesh::{Curl, DataMesh, FHIR, FHIR_SERVICE, GATEWAY, POSTGRES_SERVICE};
pub use error::{Error, Result};
pub use postgres::{postgres, psql};
pub use program::{Program, eventually, in_pod};
pub use sniffer::{CLIENT_PORTS, Sniffer};
pub use stage::{Beside, HTTP, INNER, LINES, Options, SOON, Stage};
pub use wire::{Seen, TUNNELS, Wire};
