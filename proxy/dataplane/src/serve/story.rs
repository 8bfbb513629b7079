//! The story of one request, told once, at its true end: the response ended, was cut, or the client
//! went away. Whoever holds it last tells it, by dropping it.

use std::{sync::Arc, time::Instant};

use http::Version;
use observe::Record;

use super::{gauge::Permit, line::Line, link::Link};
use crate::{
    forward::Flow,
    record::{self, Recorder},
};

/// See the module.
pub(crate) struct Story {
    /// Begun by the decision; none before it.
    record: Option<Box<Record>>,
    version: Version,
    began: Instant,
    line: Arc<Line>,
    recorder: Arc<dyn Recorder>,
    flow: Option<Arc<Flow>>,
    permits: [Option<Permit>; 2],
    complete: bool,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").field("complete", &self.complete).finish_non_exhaustive()
    }
}

impl Story {
    pub(crate) fn begin(line: Arc<Line>, recorder: Arc<dyn Recorder>, version: Version) -> Self {
        Self {
            record: None,
            version,
            began: Instant::now(),
            line,
            recorder,
            flow: None,
            permits: [None, None],
            complete: false,
        }
    }

    /// When the request came.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.line.link
    }

    /// Whether its connection was captured.
    pub(crate) fn captured(&self) -> bool {
        self.line.connection.captured.is_some()
    }

    /// What the decision knows.
    pub(crate) fn continue_with(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }

    /// The record, to add to.
    pub(crate) fn record(&mut self) -> &mut Record {
        let (line, version) = (&self.line, self.version);
        self.record.get_or_insert_with(|| record::begin(&line.connection, version))
    }

    /// The request's body, whose bytes are counted at the end.
    pub(crate) fn watch(&mut self, flow: Arc<Flow>) {
        self.flow = Some(flow);
    }

    /// Holds a permit until the end.
    pub(crate) fn hold(&mut self, permit: Permit) {
        let free = self.permits.iter_mut().find(|slot| slot.is_none());
        if let Some(slot) = free {
            *slot = Some(permit);
        }
    }

    /// Gives the places back before the end.
    pub(crate) fn release(&mut self) {
        self.permits = [None, None];
    }

    /// The response went out whole.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The response ended early for a reason of ours or of the upstream.
    pub(crate) fn cut(&mut self, flags: &'static str, details: &str) {
        let record = self.record();
        record.flags = flags;
        details.clone_into(&mut record.details);
        self.complete = true;
        self.line.link.abort();
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.line.link.end();
        if !self.complete {
            // Nobody said why it ended: the client went away, or stopped reading.
            let (flags, details) = if self.line.link.stalled() {
                ("SI", "stream_idle_timeout")
            } else {
                ("DC", "downstream_remote_disconnect")
            };
            let record = self.record();
            record.flags = flags;
            details.clone_into(&mut record.details);
        }
        if self.flow.as_ref().is_some_and(|flow| flow.client_gone()) {
            // It left in the middle of its own request: whatever we said to that, nobody read it.
            let record = self.record();
            (record.status, record.refused, record.flags) = (None, None, "DC");
            "downstream_remote_disconnect".clone_into(&mut record.details);
        }
        self.record();
        let Some(mut record) = self.record.take() else { return };
        if let Some(flow) = &self.flow {
            record.request_bytes = flow.bytes();
            record.messages.0 = flow.messages();
        }
        record.duration = self.began.elapsed();
        self.recorder.record(*record);
    }
}
