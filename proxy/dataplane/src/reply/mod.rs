//! Room `reply`.
