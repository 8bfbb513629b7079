//! The record of each request, told as metrics and access log.

pub mod record;
pub use record::Record;
