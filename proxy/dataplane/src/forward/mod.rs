//! Room `forward`.
