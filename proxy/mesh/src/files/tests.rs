#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::*;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: datamesh}}\n\
         spec: {{template: {{metadata: {{labels: {{app: {name}}}}}}}}}\n"
    )
}

struct Running {
    source: FilesSource,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start(path: &Path) -> Running {
    let settings = MeshSettings { manifests: vec![path.to_owned()], ..MeshSettings::default() };
    let stop = CancellationToken::new();
    Running { source: Source::start(settings, stop.clone()), stop }
}

impl Running {
    fn status(&self) -> SourceStatus {
        self.source.status.borrow().clone()
    }

    fn names(&self) -> Vec<String> {
        let snapshot = self.source.snapshots.borrow().clone();
        snapshot.iter().flat_map(|s| s.workloads()).map(|w| w.name.name.clone()).collect()
    }

    /// Waits for what must come within a second of a change.
    fn within_a_second(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(1), "{what}: {:?}", self.status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_change_is_in_force_within_a_second() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), deployment("one")).unwrap();
    let running = start(folder.path());
    assert_eq!(running.names(), ["one"]);
    assert_eq!((running.status().version, running.status().reloads_ok), (1, 1));
    for (version, name) in [(2, "two"), (3, "six")] {
        // The same length each time: size alone must not tell.
        fs::write(folder.path().join("a.yaml"), deployment(name)).unwrap();
        running.within_a_second(name, |running| running.names() == [name]);
        running.within_a_second("status", |running| running.status().version == version);
    }
    fs::write(folder.path().join("b.yaml"), deployment("four")).unwrap();
    running.within_a_second("a new file", |running| running.names() == ["four", "six"]);
    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    running.within_a_second("a removed file", |running| running.names() == ["six"]);
}

#[test]
fn a_touched_file_is_no_new_version() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, deployment("one")).unwrap();
    let running = start(folder.path());
    fs::write(&file, deployment("one")).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!((running.status().version, running.status().reloads_ok), (1, 1));
}

#[test]
fn a_broken_file_keeps_the_last_good_snapshot_and_says_so() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, deployment("one")).unwrap();
    let running = start(folder.path());
    fs::write(&file, "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: 5}\n").unwrap();
    running.within_a_second("refused", |running| running.status().reloads_failed == 1);
    let status = running.status();
    assert_eq!((running.names(), status.version), (vec!["one".to_owned()], 1));
    let [problem] = status.problems.as_slice() else { panic!("{:?}", status.problems) };
    assert!(problem.place.file.ends_with("a.yaml") && problem.place.line == 4, "{problem}");
    assert_eq!((problem.field.as_str(), problem.place.column), ("spec.ports", 15), "{problem}");
    assert!(status.failing_since.is_some());
    fs::write(&file, deployment("two")).unwrap();
    running.within_a_second("resolved", |running| running.names() == ["two"]);
    running.within_a_second("no problems", |running| running.status().problems.is_empty());
}

#[test]
fn broken_from_the_start_means_no_snapshot_until_repaired() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, "{").unwrap();
    let running = start(folder.path());
    assert!(running.source.snapshots.borrow().is_none());
    assert_eq!((running.status().version, running.status().reloads_failed), (0, 1));
    fs::write(&file, deployment("one")).unwrap();
    running.within_a_second("repaired", |running| running.names() == ["one"]);
}

#[test]
fn a_lost_or_emptied_folder_keeps_the_last_good_snapshot() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), deployment("one")).unwrap();
    let running = start(&folder);
    fs::remove_file(folder.join("a.yaml")).unwrap();
    running.within_a_second("emptied", |running| running.status().reloads_failed == 1);
    fs::remove_dir_all(&folder).unwrap();
    running.within_a_second("lost", |running| running.status().reloads_failed == 2);
    assert_eq!(running.names(), ["one"]);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), deployment("two")).unwrap();
    running.within_a_second("back", |running| running.names() == ["two"]);
}

#[cfg(unix)]
#[test]
fn an_emptied_file_keeps_the_last_good_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), deployment("kept")).unwrap();
    fs::write(folder.path().join("b.yaml"), namespace("other")).unwrap();
    let running = start(folder.path());
    running.within_a_second("loaded", |r| r.names() == ["kept"]);
    for nothing in ["", "\n \n"] {
        // As an editor, a full disk or `cat > a.yaml` may leave it: no wish to have no policy left.
        fs::write(folder.path().join("a.yaml"), nothing).unwrap();
        running.within_a_second("told", |r| !r.status().problems.is_empty());
        assert_eq!(running.names(), ["kept"]);
        assert!(running.status().problems[0].to_string().contains("the file is empty"));
        fs::write(folder.path().join("a.yaml"), deployment("kept")).unwrap();
        running.within_a_second("mended", |r| r.status().problems.is_empty());
    }
    fs::write(folder.path().join("a.yaml"), "# nothing for now\n").unwrap();
    running.within_a_second("said in so many words", |r| r.names().is_empty());
}

#[test]
fn a_configmap_mount_is_followed_when_its_link_is_swapped() {
    use std::os::unix::fs::symlink;
    let folder = TempDir::new().unwrap();
    let version = |name: &str, workload: &str| {
        let data = folder.path().join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("a.yaml"), deployment(workload)).unwrap();
    };
    version("..2026_01", "one");
    symlink("..2026_01", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let running = start(folder.path());
    assert_eq!(running.names(), ["one"]);
    version("..2026_02", "two");
    symlink("..2026_02", folder.path().join("..data_tmp")).unwrap();
    fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    fs::remove_dir_all(folder.path().join("..2026_01")).unwrap();
    running.within_a_second("swapped", |running| running.names() == ["two"]);
    assert_eq!(running.status().reloads_failed, 0);
}

#[test]
fn half_a_file_is_never_in_force() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    let whole = format!("{}---\n{}", deployment("one"), deployment("two"));
    fs::write(&file, &whole).unwrap();
    let running = start(folder.path());
    // A slow writer: the first half alone would be a good manifest. Rounds in which this machine
    // was so busy that the half stood for long do not count.
    let mut rounds = 0;
    for _ in 0..50 {
        let before = running.status().version;
        let started = Instant::now();
        fs::write(&file, deployment("one")).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        fs::write(&file, &whole).unwrap();
        let quick = started.elapsed() < Duration::from_millis(90);
        running.within_a_second("whole", |running| running.names() == ["one", "two"]);
        std::thread::sleep(Duration::from_millis(300));
        if quick {
            assert_eq!(running.status().version, before);
            rounds += 1;
        }
        if rounds == 3 {
            return;
        }
    }
    panic!("only {rounds} rounds counted");
}

#[test]
fn other_json_in_a_folder_is_passed_over_and_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let patient = folder.path().join("demo_patient.json");
    fs::write(&patient, r#"{"resourceType": "Patient", "gender": "female"}"#).unwrap();
    fs::write(folder.path().join("a.yaml"), namespace("datamesh")).unwrap();
    fs::write(folder.path().join(".hidden.yaml"), "{").unwrap();
    fs::write(folder.path().join("notes.txt"), "{").unwrap();
    let settings = MeshSettings::default();
    let (snapshot, warnings) = Snapshot::load(&[folder.path().to_owned()], &settings).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(snapshot.unused_kinds.get(NO_OBJECT), Some(&1));
    let problems = Snapshot::load(&[patient], &settings).unwrap_err();
    assert!(problems[0].place.file.ends_with("demo_patient.json"), "{problems:?}");
    // A misspelt manifest is no other JSON.
    fs::write(folder.path().join("b.json"), r#"{"apiVersion": "v1", "knd": "Service"}"#).unwrap();
    assert!(Snapshot::load(&[folder.path().to_owned()], &settings).is_err());
}

#[test]
fn a_file_named_twice_is_read_once() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, deployment("one")).unwrap();
    let (objects, problems) = read_objects(&[folder.path().to_owned(), file]);
    assert_eq!((objects.len(), problems.len()), (1, 0));
}

#[test]
fn limits_have_names() {
    let folder = TempDir::new().unwrap();
    for name in ["a.yaml", "b.yaml"] {
        fs::write(folder.path().join(name), namespace(name)).unwrap();
    }
    let size = namespace("a.yaml").len() as u64;
    let default = ManifestLimits::default();
    let cases = [
        (ManifestLimits { file_bytes: size - 1, ..default.clone() }, "mesh.limits.fileBytes"),
        (ManifestLimits { total_bytes: size + 1, ..default.clone() }, "mesh.limits.totalBytes"),
        (ManifestLimits { files: 1, ..default.clone() }, "mesh.limits.files"),
        (ManifestLimits { objects: 1, ..default.clone() }, "mesh.limits.objects"),
    ];
    let load = |limits| {
        let settings = MeshSettings { limits, ..MeshSettings::default() };
        Snapshot::load(&[folder.path().to_owned()], &settings)
    };
    assert!(load(default).is_ok());
    for (limits, name) in cases {
        let problems = load(limits).unwrap_err();
        assert!(problems.iter().any(|problem| problem.message.contains(name)), "{problems:?}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_name() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("latin1.yaml"), b"a: \xe9").unwrap();
    let missing = folder.path().join("missing.yaml");
    let (_, problems) = read_objects(&[folder.path().to_owned(), missing]);
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|t| t.contains("latin1.yaml") && t.contains("UTF-8")), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("missing.yaml")), "{texts:?}");
}
