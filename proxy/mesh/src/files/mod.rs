//! Manifests from files and folders, kept current.
//!
//! One thread reads, builds and publishes (invariant 9). It looks when the file system says that
//! something changed and every half second besides, waits until writers are done, and replaces the
//! snapshot only by a whole good one (invariant 5). ConfigMap mounts, whose `..data` link is
//! swapped, need nothing special: names are followed anew at each look.

mod read;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

use policy::{Object, Problem};
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use crate::{ManifestLimits, MeshSettings, Snapshot};
use read::Contents;

/// Under what name documents that are no Kubernetes objects are counted.
const NO_OBJECT: &str = "(no Kubernetes object)";

/// A source that reads files; see [`Source::start`].
#[derive(Debug)]
pub struct Source;

/// A running source.
#[derive(Debug, Clone)]
pub struct FilesSource {
    /// The newest good snapshot; `None` until the manifests were good once: everything is refused.
    pub snapshots: channel::Receiver<Option<Arc<Snapshot>>>,
    /// How the manifests stand.
    pub status: channel::Receiver<SourceStatus>,
}

/// How the manifests stand.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// Version of the snapshot in force; 0: none yet.
    pub version: u64,
    /// When it was loaded.
    pub loaded_at: Option<SystemTime>,
    /// Errors in the manifests as they stand now; while there are any, the last good snapshot holds.
    pub problems: Vec<Problem>,
    /// Since when there have been errors.
    pub failing_since: Option<SystemTime>,
    /// Warnings about the snapshot in force.
    pub warnings: Vec<Problem>,
    /// Objects by kind that the snapshot in force uses.
    pub used: BTreeMap<String, usize>,
    /// Objects by kind that it does not.
    pub unused: BTreeMap<String, usize>,
    /// Loads that gave a snapshot, the first included.
    pub reloads_ok: u64,
    /// Loads that were refused, the first included.
    pub reloads_failed: u64,
}

impl Source {
    /// Loads the manifests once, before it returns, and then keeps them current on a thread of its
    /// own until `stop`. The channels keep their last values after that.
    #[must_use]
    pub fn start(settings: MeshSettings, stop: CancellationToken) -> FilesSource {
        let (snapshots, snapshots_seen) = channel::channel(None);
        let (status, status_seen) = channel::channel(SourceStatus::default());
        watch::Writer::new(settings, snapshots, status).run(stop);
        FilesSource { snapshots: snapshots_seen, status: status_seen }
    }
}

/// Reads the objects of files and folders, within the default limits.
///
/// Folders are read without descending: `*.yaml`, `*.yml` and `*.json`, hidden files left out,
/// sorted by name. A JSON document in a folder that is no Kubernetes object is passed over; one
/// that is named itself is an error.
#[must_use]
pub fn read_objects(paths: &[PathBuf]) -> (Vec<Object>, Vec<Problem>) {
    let parsed = Contents::read(paths, &ManifestLimits::default()).parse();
    (parsed.objects, parsed.problems)
}

impl Snapshot {
    /// Loads a snapshot from files and folders, once (`check`, `test`, `explain`). The settings' own
    /// `manifests` are not looked at.
    ///
    /// # Errors
    /// Every problem, errors and warnings.
    pub fn load(paths: &[PathBuf], settings: &MeshSettings) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        load(&Contents::read(paths, &settings.limits), settings, 1)
    }
}

fn load(
    contents: &Contents,
    settings: &MeshSettings,
    version: u64,
) -> Result<(Snapshot, Vec<Problem>), Vec<Problem>> {
    let parsed = contents.parse();
    if parsed.problems.iter().any(Problem::is_error) {
        return Err(parsed.problems);
    }
    let (mut snapshot, mut warnings) = Snapshot::build(&parsed.objects, settings, version)?;
    if parsed.passed_over > 0 {
        snapshot.unused_kinds.insert(NO_OBJECT.to_owned(), parsed.passed_over);
    }
    warnings.extend(parsed.problems);
    Ok((snapshot, warnings))
}
