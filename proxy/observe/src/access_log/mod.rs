//! The access log: JSON, one object a line, redacted unless asked otherwise.

mod line;
#[cfg(test)]
mod tests;

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use crate::{AccessLogSettings, Record};

/// Longest rest of the writer between two rounds: a line is seen at most so much later.
const ROUND: Duration = Duration::from_millis(10);

/// The rest for each line that the queue holds: a small queue is not to overflow while the writer rests,
/// at any rate below a million lines a second.
const REST_PER_LINE: Duration = Duration::from_micros(1);

/// A round that wrote this share of the queue (one in so many) is followed by the next at once.
const BUSY_SHARE: usize = 4;

/// What the writer gathers before it calls the kernel, in bytes: some 100 lines.
const BUFFER: usize = 64 * 1024;

/// The log file could not be opened, or its writer not started.
#[derive(Debug, thiserror::Error)]
#[error("access log {}: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: std::io::Error,
}

/// A bounded queue and the thread that writes it. Dropping it writes what waits.
pub struct AccessLog {
    queue: Option<SyncSender<Box<Record>>>,
    writer: Option<JoinHandle<()>>,
    reasons: bool,
}

impl AccessLog {
    /// Opens the sink and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(settings: &AccessLogSettings) -> Result<Self, OpenError> {
        let path = settings.file.clone().unwrap_or_else(|| PathBuf::from("-"));
        let failed = |source| OpenError { path: path.clone(), source };
        let sink: Box<dyn Write + Send> = match &settings.file {
            None => Box::new(std::io::stdout()),
            Some(file) => Box::new(OpenOptions::new().create(true).append(true).open(file).map_err(failed)?),
        };
        let (queue, records) = sync_channel(settings.queue.max(1));
        let format = settings.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&records, sink, &format))
            .map_err(failed)?;
        Ok(Self { queue: Some(queue), writer: Some(writer), reasons: settings.reasons })
    }

    /// Whether denials should carry their steps.
    #[must_use]
    pub fn wants_reasons(&self) -> bool {
        self.reasons
    }

    /// Queues one record; `false` when the queue is full (or the writer is gone).
    #[must_use]
    pub fn offer(&self, record: Record) -> bool {
        self.queue.as_ref().is_some_and(|queue| match queue.try_send(Box::new(record)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to say.
            let _ = writer.join();
        }
    }
}

/// Writes until the queue is closed; flushes whenever it runs empty, so that a line is seen soon.
///
/// Between two rounds it rests: a writer that waited for every single record would be woken
/// by every single request, and under load that wake-up (two switches of context) costs the request's own
/// core more than all the deciding does.
fn write_all(records: &Receiver<Box<Record>>, sink: Box<dyn Write + Send>, format: &AccessLogSettings) {
    let mut sink = BufWriter::with_capacity(BUFFER, sink);
    let round = (format.queue / BUSY_SHARE).max(1);
    let rest = ROUND.min(REST_PER_LINE.saturating_mul(u32::try_from(format.queue).unwrap_or(u32::MAX)));
    while let Ok(first) = records.recv() {
        let mut failed = line::write(&mut sink, &first, format).is_err();
        let mut written = 1_usize;
        while let Ok(next) = records.try_recv() {
            failed |= line::write(&mut sink, &next, format).is_err();
            written += 1;
        }
        failed |= sink.flush().is_err();
        if failed {
            tracing::error!("the access log cannot be written");
        }
        // A queue that filled by a good part while we wrote would overflow while we slept.
        if written < round {
            std::thread::sleep(rest);
        }
    }
}
