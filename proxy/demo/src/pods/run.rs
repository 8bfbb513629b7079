//! What tells one run from another, and the removal of what dead runs left.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Error, cgroup, namespace, tool};

/// How the names of everything begin that this module makes.
const PREFIX: &str = "fhirward-pods-";
const FOLDER: &str = "/run";

/// Runs of this process so far.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// The run's name and its folder.
pub(super) struct Run {
    name: String,
    folder: PathBuf,
}

impl Run {
    pub(super) fn new() -> Result<Self, Error> {
        let pid = process::id();
        let started = started(pid).ok_or_else(|| Error::Tool {
            program: "/proc".to_owned(),
            said: "does not say when this process started".to_owned(),
        })?;
        let name = format!("{PREFIX}{pid}-{started}-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(FOLDER).join(&name);
        let run = Self { name, folder };
        let bpf = run.bpf();
        fs::create_dir_all(&bpf).map_err(Error::io(format!("make {}", bpf.display())))?;
        let place = bpf.display().to_string();
        tool::run("mount", &["-t", "bpf", "-o", "mode=0755", "bpf", &place], "")?;
        Ok(run)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn bpf(&self) -> PathBuf {
        self.folder.join("bpf")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        remove_folder(&self.folder);
    }
}

/// Unmounting takes the pins with it.
fn remove_folder(folder: &Path) {
    let bpf = folder.join("bpf");
    let _ = tool::run("umount", &["-l", &bpf.display().to_string()], "");
    // Never into a file system that would not go: its files are pins that somebody may still need.
    if fs::read_dir(&bpf).is_ok_and(|mut files| files.next().is_none()) {
        let _ = fs::remove_dir_all(folder);
    }
}

/// Removes what runs left whose process is no more. As far as it goes: what stays is no obstacle.
pub(super) fn collect(cgroups: &Path) {
    for path in dead(cgroups) {
        cgroup::remove(&path);
    }
    for path in dead(Path::new(namespace::FOLDER)) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            namespace::remove(name);
        }
    }
    for path in dead(Path::new(FOLDER)) {
        remove_folder(&path);
    }
}

fn dead(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().and_then(maker).is_some_and(|(pid, at)| started(pid) != Some(at))
        })
        .map(|entry| entry.path())
        .collect()
}

/// Process id and start time of the process that made what has this name.
fn maker(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// When a process started, in clock ticks since the boot: field 22 of `/proc/<pid>/stat` (proc(5)).
/// With the id it names one process, ids being used again.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{maker, started};

    #[test]
    fn names_tell_their_maker() {
        assert_eq!(maker("fhirward-pods-17-4711-0.node"), Some((17, 4711)));
        assert_eq!(maker("fhirward-pods-17-4711-0"), Some((17, 4711)));
        assert_eq!(maker("fhirward-pods-x-4711-0"), None);
        assert_eq!(maker("somebody-else"), None);
    }

    #[test]
    fn this_process_has_started_and_no_other_is_it() {
        let own = std::process::id();
        assert!(started(own).unwrap() > 0);
        assert_eq!(started(u32::MAX), None);
    }
}
