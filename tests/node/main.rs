//! Capture as a whole, as root: pods as network namespaces, the agent and the proxy as processes, and
//! an eye on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod churn;
mod claims;
mod clients;
mod inbound;
mod kills;
mod labels;
mod open;
mod past;
mod press;
mod scripts;
mod squat;
mod views;
