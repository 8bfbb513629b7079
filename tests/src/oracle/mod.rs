//! The oracle: our proxy and a real Envoy are given the same policies and the same bytes, and must do the same.

pub mod translate;
