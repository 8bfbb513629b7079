//! The one writer: looks, waits until writers are done, loads, publishes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use policy::{Place, Problem};
use tokio::sync::watch as channel;
use tokio_util::sync::CancellationToken;

use super::{
    SourceStatus, load,
    read::{Contents, Glance},
};
use crate::{MeshSettings, Snapshot, codes};

/// Longest time between two looks, whatever the file system says or fails to say.
const POLL: Duration = Duration::from_millis(500);
/// Files must stand still for this long: half a file may be a whole, wider policy.
const SETTLE: Duration = Duration::from_millis(120);
/// After so long without standing still they are loaded as they are.
const MAX_SETTLE: Duration = Duration::from_secs(5);
/// How much nicer than the workers the thread is once requests may be under way.
const BACKGROUND: i32 = 10;
/// Most problems of one load that are logged one by one.
const MAX_LOGGED: usize = 20;

/// The writer of both channels.
pub(super) struct Writer {
    settings: MeshSettings,
    snapshots: channel::Sender<Option<Arc<Snapshot>>>,
    status: channel::Sender<SourceStatus>,
    /// What was loaded last, good or not.
    seen: Option<(Glance, [u8; 32])>,
    /// Snapshots that were replaced, until no request uses them: the last user of one takes it apart, which
    /// for 10,000 policies is no work for a request.
    retired: Vec<Arc<Snapshot>>,
}

impl Writer {
    pub(super) fn new(
        settings: MeshSettings,
        snapshots: channel::Sender<Option<Arc<Snapshot>>>,
        status: channel::Sender<SourceStatus>,
    ) -> Self {
        Self { settings, snapshots, status, seen: None, retired: Vec::new() }
    }

    /// Loads at once, then goes on in a thread until `stop`.
    pub(super) fn run(mut self, stop: CancellationToken) {
        self.look();
        let status = self.status.clone();
        let spawned = thread::Builder::new().name("manifests".to_owned()).spawn(move || self.watch(&stop));
        if let Err(error) = spawned {
            let text = format!("changes will not be seen: no thread to watch them ({error})");
            status.send_modify(|status| status.problems.push(trouble(text)));
        }
    }

    fn watch(mut self, stop: &CancellationToken) {
        // Compiling ten thousand policies keeps a core busy for a while: requests go first. Linux keeps a
        // nice value for each thread (nice(2), "C library/kernel differences").
        if let Err(error) = rustix::process::nice(BACKGROUND) {
            tracing::warn!(%error, "manifests are read at the priority of requests");
        }
        let (wake, woken) = mpsc::sync_channel(1);
        let mut watcher = watcher(wake);
        while !stop.is_cancelled() {
            // Again each time: folders may have come, gone or been replaced.
            if let Some(watcher) = &mut watcher {
                watch_all(watcher, &self.settings.manifests);
            }
            if !wait(&woken) {
                // No notifications to be had: only the clock wakes.
                thread::sleep(POLL);
            }
            if !stop.is_cancelled() {
                self.look();
                // Ours is the last reference: dropped here, in this thread.
                self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
            }
        }
    }

    /// Loads where something changed since the last load.
    fn look(&mut self) {
        let (paths, limits) = (&self.settings.manifests, &self.settings.limits);
        let mut glance = Glance::take(paths, limits);
        if let Some((seen, digest)) = &self.seen {
            if glance == *seen && !glance.is_unsettled() {
                return;
            }
            if glance == *seen && Contents::read(paths, limits).digest() == *digest {
                return;
            }
            glance = settled(glance, paths, limits);
        }
        let contents = Contents::read(paths, limits);
        let digest = contents.digest();
        // A write between the glance and the reading shows at the next look.
        let unchanged = self.seen.replace((glance, digest)).is_some_and(|(_, seen)| seen == digest);
        if !unchanged {
            self.publish(&contents);
        }
    }

    fn publish(&mut self, contents: &Contents) {
        let version = self.status.borrow().version + 1;
        let load = || load(contents, &self.settings, version);
        // A bug in here must not end the thread and leave the policy stale in silence.
        let loaded = catch_unwind(AssertUnwindSafe(load))
            .unwrap_or_else(|_| Err(vec![trouble("internal error while reading the manifests".to_owned())]));
        match loaded {
            Ok((snapshot, warnings)) => self.replace(snapshot, warnings),
            Err(problems) => self.refuse(problems),
        }
    }

    fn replace(&mut self, snapshot: Snapshot, warnings: Vec<Problem>) {
        let snapshot = Arc::new(snapshot);
        if let Some(previous) = self.snapshots.borrow().as_ref() {
            snapshot.prepare_as(previous);
        }
        tracing::info!(
            version = snapshot.version,
            workloads = snapshot.workloads().count(),
            warnings = warnings.len(),
            "manifests loaded"
        );
        for warning in warnings.iter().take(MAX_LOGGED) {
            tracing::warn!(code = warning.code, "{warning}");
        }
        self.retired.extend(self.snapshots.send_replace(Some(Arc::clone(&snapshot))));
        self.status.send_modify(|status| {
            status.version = snapshot.version;
            status.loaded_at = Some(SystemTime::now());
            status.problems.clear();
            status.failing_since = None;
            status.warnings = warnings;
            status.used.clone_from(&snapshot.used_kinds);
            status.unused.clone_from(&snapshot.unused_kinds);
            status.reloads_ok += 1;
        });
    }

    fn refuse(&self, problems: Vec<Problem>) {
        let problems: Vec<Problem> = problems.into_iter().filter(Problem::is_error).collect();
        let in_force = self.status.borrow().version;
        tracing::error!(
            errors = problems.len(),
            in_force,
            "manifests refused; the last good snapshot holds (0: none, everything is refused)"
        );
        for problem in problems.iter().take(MAX_LOGGED) {
            tracing::error!(code = problem.code, "{problem}");
        }
        self.status.send_modify(|status| {
            status.problems = problems;
            status.failing_since = status.failing_since.or(Some(SystemTime::now()));
            status.reloads_failed += 1;
        });
    }
}

/// Waits until the files stand still, and says how they stand.
fn settled(mut glance: Glance, paths: &[PathBuf], limits: &crate::ManifestLimits) -> Glance {
    let started = Instant::now();
    let mut digest = Contents::read(paths, limits).digest();
    while started.elapsed() < MAX_SETTLE {
        thread::sleep(SETTLE);
        let (next, next_digest) = (Glance::take(paths, limits), Contents::read(paths, limits).digest());
        if next == glance && next_digest == digest {
            break;
        }
        (glance, digest) = (next, next_digest);
    }
    glance
}

/// Waits for a notification or the time to look anyhow; false where nothing can notify.
fn wait(woken: &Receiver<()>) -> bool {
    !matches!(woken.recv_timeout(POLL), Err(RecvTimeoutError::Disconnected))
}

fn watcher(wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        // Reading is no change, and reading is what this thread does.
        let change = event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_)));
        if change {
            // One pending wake-up is as good as many.
            let _ = wake.try_send(());
        }
    };
    notify::recommended_watcher(told)
        .inspect_err(|error| tracing::warn!(%error, "no file notifications; looking twice a second"))
        .ok()
}

/// Watches the folders, and the folders of files; what cannot be watched is looked at by the clock.
fn watch_all(watcher: &mut RecommendedWatcher, paths: &[PathBuf]) {
    for path in paths {
        let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
    }
}

fn trouble(text: String) -> Problem {
    let place = Place { file: "manifests".into(), line: 1, column: 1 };
    Problem::error(codes::UNREADABLE, place, "", text)
}
