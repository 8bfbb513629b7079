//! The peers side by side: `fhirward-bench` starts them, drives them and tells what they cost. The pure
//! decision is measured by `benches/decision`.
//!
//! Speed lives here and never in a timed test: machines are shared, only ratios within one run count.

pub mod capture;
pub mod cell;
pub mod load;
pub mod machine;
pub mod meshes;
pub mod mtls;
pub mod peers;
mod phase;
pub mod reach;
pub mod report;
pub mod rounds;
pub mod statistics;
pub mod tokens;
pub mod workloads;
