//! FHIR, pure: what a request means ([`classify`]), what a client takes ([`Format`]), and how an
//! error is told ([`outcome`]). No runtime, file, socket, clock or log (invariant 2).

pub mod format;
pub mod interaction;
pub mod outcome;
pub mod types;

pub use format::Format;
pub use interaction::{Interaction, Kind, classify};
pub use outcome::{Issue, IssueCode};
pub use types::{is_resource_type, resource_type};
