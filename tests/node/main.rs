//! Capture as a whole, as root: pods as network namespaces, the agent and the proxy as processes, and
//! an eye on the wire.
// Figures of what was measured are told to whoever reads the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod between;
mod churn;
mod claims;
mod clients;
mod datamesh;
mod inbound;
mod intruders;
mod kills;
mod labels;
mod open;
mod past;
mod permissive;
mod press;
mod scripts;
mod squat;
mod views;
