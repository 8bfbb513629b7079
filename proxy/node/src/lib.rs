//! The `fhirward` command: settings, wiring, admin server, signals, and the offline tools.
//!
//! The binary is a thin `main` over this library, which the demo and the whole-proxy tests use too.

pub mod admin;
pub mod agent;
pub mod capture;
pub mod commands;
pub mod policy_test;
pub mod problems;
pub mod run;
pub mod settings;
mod workloads;

pub use run::{Node, StartError};
pub use settings::Settings;
