//! The oracle: our proxy and a real Envoy are given the same policies and the same bytes, and must do the same,
//! or the difference is in a short table with its reason.
//!
//! | module | what it is |
//! |---|---|
//! | [`generate`] | worlds (policies of one workload) and requests, by [`dice`] |
//! | [`translate`] | Istio manifests to an Envoy configuration |
//! | [`pair`] | both proxies in the same worlds, before one recorder |
//! | [`wire`] | clients that send bytes as they are, and the recorder |
//! | [`view`] | what a proxy did, and in what two differ |
//! | [`differences`] | the table |
//! | [`run`] | the comparison |
//! | [`shrink`], [`print`] | a disagreement to its smallest form, as a PolicyTest case |

pub mod dice;
pub mod differences;
pub mod generate;
pub mod model;
pub mod pair;
pub mod print;
pub mod run;
pub mod shrink;
pub mod translate;
pub mod view;
pub mod wire;
