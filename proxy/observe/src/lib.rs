//! The record of each request, told as metrics and access log.
//!
//! [`Recorder::record`] takes a [`Record`] once and never waits: counters are bumped in place, the
//! log line is handed to a writer thread over a bounded queue; what does not fit is counted.

pub mod access_log;
pub mod metrics;
pub mod record;
pub mod recorder;
pub mod redact;
pub mod settings;

pub use metrics::{Exposition, Metrics};
pub use record::Record;
pub use recorder::Recorder;
pub use settings::{AccessLogSettings, ObserveSettings, PathDetail};
