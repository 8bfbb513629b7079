//! Room `identify`.
