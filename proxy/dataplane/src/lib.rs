//! Sockets and HTTP: the way of a request, room by room.
//!
//! | room | takes -> gives |
//! |---|---|
//! | [`accept`] | socket -> [`accept::Connection`] |
//! | [`secure`] | TLS where the listener has it |
//! | [`admit`] | Connection + one snapshot -> [`admit::Admitted`] |
//! | [`serve`] | bytes -> [`serve::head::Request`]: limits, framing, canonical target |
//! | `route` | at a gateway: its own policies, then the destination |
//! | [`identify`] | tokens -> claims, edits |
//! | [`classify`] | FHIR interaction, where the workload serves FHIR |
//! | [`authorize`] | question -> [`authorize::Permitted`], its only maker |
//! | [`forward`] | **Permitted only** -> upstream response |
//! | [`judge`] | response + Permitted -> released or withheld |
//! | [`reply`] | any outcome -> status and body |
//! | [`record`] | the whole story, once |

pub mod accept;
pub mod admit;
pub mod authorize;
pub mod capture;
pub mod classify;
mod dice;
pub mod engine;
pub mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod hbone;
pub mod identify;
pub mod judge;
pub mod limits;
pub mod offline;
mod proxy;
pub mod record;
pub mod refusal;
pub mod reply;
mod route;
pub mod secure;
pub mod serve;
#[cfg(test)]
mod testing;
mod wire;

pub use capture::Capture;
pub use engine::{Engine, EngineSettings};
pub use limits::Limits;
pub use proxy::{DrainReport, Proxy};
pub use refusal::Refusal;
