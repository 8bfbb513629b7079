//! Manifests to a checked model to compiled rules; a question to a decision with reasons.
//!
//! Pure: no runtime, file, socket, clock or log (invariant 2). What comes in is text and plain
//! facts, what goes out is data: [`Problem`]s, compiled policies, a [`Decision`].

pub mod claims;
pub mod decision;
pub mod istio;
pub mod manifest;
pub mod names;
pub mod question;
pub mod target;

pub use claims::RequestIdentity;
pub use decision::{Decision, Outcome, Step, Verdict};
pub use manifest::{Object, Place, Problem, Severity};
pub use names::{SpiffeId, WorkloadName};
pub use question::{Destination, Question, RequestFacts, Source};
