//! A second evaluator, written straight from Istio's documentation and nothing else, against which
//! the engine is compared on random worlds and questions.
//!
//! It knows no index and no cleverness: plain types ([`World`]), a walk over every policy
//! ([`decide`]), text compared as text. It shares no code with the crates it checks, so that a
//! mistake has to be made twice to pass. [`strategies`] makes the worlds and questions, from one
//! small vocabulary, so that policies nearly match; [`print`] writes worlds as manifests.
//!
//! Source: istio.io/latest/docs/reference/config/security (authorization-policy, conditions,
//! request_authentication, peer_authentication) and what a running Envoy 1.40 does where those are
//! silent (tests/cases/envoy).

mod address;
mod authenticate;
mod authorize;
mod model;
pub mod print;
pub mod strategies;
mod template;
mod text;
mod vocabulary;

pub use authenticate::{Credentials, Mode, Presented, authenticate, issuers, mode};
pub use authorize::{Answer, DryRun, decide};
pub use model::{
    Action, Asked, Condition, HttpAsked, JwtRule, List, Member, Peer, PeerAuthentication, Policy,
    RequestAuthentication, Rule, Selection, Target, World,
};
