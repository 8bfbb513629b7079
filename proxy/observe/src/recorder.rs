//! The one place a [`Record`] is handed to.

use std::sync::Arc;

use crate::{
    Metrics, ObserveSettings, Record,
    access_log::{AccessLog, OpenError},
};

/// Tells metrics and access log of each request. Cheap to share; never waits.
pub struct Recorder {
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
}

impl Recorder {
    /// Opens the log and registers the metrics.
    ///
    /// # Errors
    /// When the log file cannot be opened.
    pub fn new(settings: &ObserveSettings) -> Result<Self, OpenError> {
        let metrics = Arc::new(Metrics::new(settings));
        let log = settings.access_log.enabled.then(|| AccessLog::open(&settings.access_log)).transpose()?;
        Ok(Self { metrics, log })
    }

    /// One that counts and writes no log: for offline runs and tests.
    #[must_use]
    pub fn silent() -> Self {
        Self { metrics: Arc::new(Metrics::new(&ObserveSettings::default())), log: None }
    }

    /// Whether the steps behind a denial are wanted: finding them costs a second look at the rules.
    #[must_use]
    pub fn wants_reasons(&self) -> bool {
        self.log.as_ref().is_some_and(AccessLog::wants_reasons)
    }

    /// Tells of one request. Never blocks: a log line that does not fit its queue is dropped and counted.
    pub fn record(&self, record: Record) {
        self.metrics.observe(&record);
        if let Some(log) = &self.log
            && !log.offer(record)
        {
            self.metrics.log_dropped();
        }
    }

    /// Tells that a raw TCP connection opens, whose record follows at its end.
    pub fn opened(&self, record: &Record) {
        self.metrics.opened(record);
    }

    /// Tells of bytes on a raw TCP connection that goes on: from the client, and to it.
    pub fn moved(&self, record: &Record, bytes: (u64, u64)) {
        self.metrics.moved(record, bytes);
    }

    /// The counters, for the admin server.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}
