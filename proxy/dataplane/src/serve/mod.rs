//! Room `serve`.

pub mod head;
