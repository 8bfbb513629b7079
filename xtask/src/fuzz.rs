//! `cargo xtask fuzz`: each target of `tests/fuzz` under libFuzzer and AddressSanitizer, for so many seconds.
//!
//! Fuzzing starts from the corpus in git (`tests/fuzz/corpus`) and from what earlier runs on this machine
//! have found (`target/fuzz/corpus`), to which it adds. `--keep` takes a small part of that over into git.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{self, Context, Failure, say};

/// One input that takes longer is a finding. The machine may be busy.
const INPUT_SECONDS: u32 = 10;
/// More memory than this is a finding; the sanitizer's own takes about 600 MB of it.
const MEMORY_MB: u32 = 2048;
/// What `--keep` takes over for each target at most: the whole corpus stays below the 300 kB that
/// `tests/fuzz/targets/tests/replay.rs` allows.
const KEPT_BYTES: usize = 30 * 1024;
/// And so many inputs.
const KEPT_INPUTS: usize = 200;
/// How their names begin.
const TAKEN_OVER: &str = "kept-";

/// What to run.
pub struct Plan {
    /// For how long, each target.
    pub seconds: u32,
    /// Only this one.
    pub target: Option<String>,
    /// Take over what was found into the corpus in git.
    pub keep: bool,
}

/// Runs the targets one after the other.
///
/// # Errors
/// What is missing (a nightly compiler), no such target, or the targets that found something, each with
/// what they found.
pub fn fuzz(plan: &Plan) -> Result<(), Failure> {
    let targets = chosen(plan.target.as_deref())?;
    need_nightly()?;
    need_cargo_fuzz()?;
    let mut failed = Vec::new();
    for target in &targets {
        say(&format!("==> {target}: {} s", plan.seconds));
        match run(target, plan.seconds) {
            Ok(()) if plan.keep => keep(target)?,
            Ok(()) => {}
            Err(failure) => {
                say(&format!("xtask: {failure}"));
                failed.push(target.clone());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let names = failed.join(", ");
    Err(Failure(format!("findings of {names}: the inputs lie below tests/fuzz/artifacts; make each a test")))
}

fn folder() -> PathBuf {
    command::root().join("tests/fuzz")
}

/// Apart from the builds of everything else: other flags, another compiler.
fn build_folder() -> PathBuf {
    command::root().join("target/fuzz")
}

/// The targets' names: one file each.
fn chosen(wanted: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder().join("fuzz_targets")).doing("read tests/fuzz/fuzz_targets")? {
        let path = entry.doing("read tests/fuzz/fuzz_targets")?.path();
        if let Some(name) = path.file_stem() {
            all.insert(name.to_string_lossy().into_owned());
        }
    }
    match wanted {
        None => Ok(all.into_iter().collect()),
        Some(wanted) if all.contains(wanted) => Ok(vec![wanted.to_owned()]),
        Some(wanted) => {
            let all: Vec<String> = all.into_iter().collect();
            Err(Failure(format!("there is no fuzz target {wanted}; there are {}", all.join(", "))))
        }
    }
}

fn need_nightly() -> Result<(), Failure> {
    let found = command::output("rustup", &["run", "nightly", "rustc", "--version"]);
    found.map(|_| ()).ok_or_else(|| {
        let text = "fuzzing needs a nightly compiler: `rustup toolchain install nightly --profile minimal`";
        Failure(text.to_owned())
    })
}

fn need_cargo_fuzz() -> Result<(), Failure> {
    if command::output("cargo", &["fuzz", "--version"]).is_some() {
        return Ok(());
    }
    say("installing cargo-fuzz");
    command::show(command::cargo().args(["install", "cargo-fuzz", "--locked"]))
}

/// `cargo fuzz run TARGET` with the corpora, ready for libFuzzer's own flags.
fn cargo_fuzz(target: &str, corpora: &[&Path]) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(command::root()).args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir"]);
    command.arg(folder()).arg("--target-dir").arg(build_folder()).arg(target).args(corpora);
    command.arg("--");
    command
}

fn run(target: &str, seconds: u32) -> Result<(), Failure> {
    let (found, kept) = corpora(target)?;
    let mut fuzzing = cargo_fuzz(target, &[&found, &kept]);
    fuzzing.arg(format!("-max_total_time={seconds}"));
    fuzzing.arg(format!("-timeout={INPUT_SECONDS}")).arg(format!("-rss_limit_mb={MEMORY_MB}"));
    fuzzing.arg("-print_final_stats=1");
    let dictionary = folder().join("dictionaries").join(format!("{target}.dict"));
    if dictionary.exists() {
        fuzzing.arg(format!("-dict={}", dictionary.display()));
    }
    command::show(&mut fuzzing)
}

/// What this machine has found so far, and what lies in git.
fn corpora(target: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let found = build_folder().join("corpus").join(target);
    let kept = folder().join("corpus").join(target);
    for path in [&found, &kept] {
        fs::create_dir_all(path).doing(format_args!("make {}", path.display()))?;
    }
    Ok((found, kept))
}

/// Some of the inputs that between them reach everything the corpora reach, within the bounds above, take
/// the place of what was taken over before. Inputs that people named (`seed-*`, `found-*`) stay.
fn keep(target: &str) -> Result<(), Failure> {
    let (_, kept) = corpora(target)?;
    let merged = merge(target)?;
    for old in named(&kept, |name| name.starts_with(TAKEN_OVER))? {
        fs::remove_file(&old).doing(format_args!("remove {}", old.display()))?;
    }
    let there = named(&kept, |_| true)?.iter().map(fs::read).collect::<Result<Vec<_>, _>>();
    let there = there.doing("read the corpus")?;
    let inputs = named(&merged, |_| true)?.into_iter().map(|path| fs::read(&path).map(|input| (input, path)));
    let mut inputs = inputs.collect::<Result<Vec<_>, _>>().doing("read the merged corpus")?;
    inputs.retain(|(input, _)| !there.contains(input));
    inputs.sort_by_key(|(input, _)| input.len());
    // Every so many: short ones and long ones.
    let all: usize = inputs.iter().map(|(input, _)| input.len()).sum();
    let step = all.div_ceil(KEPT_BYTES).max(inputs.len().div_ceil(KEPT_INPUTS)).max(1);
    let (mut count, mut bytes) = (0, 0);
    for (input, path) in inputs.iter().step_by(step) {
        // libFuzzer names an input by its hash.
        let hash = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = format!("{TAKEN_OVER}{}", hash.get(..12).unwrap_or(&hash));
        fs::write(kept.join(name), input).doing("write the corpus")?;
        (count, bytes) = (count + 1, bytes + input.len());
    }
    say(&format!("{target}: {count} of {} inputs kept, {bytes} bytes", inputs.len()));
    Ok(())
}

/// A folder with the inputs that are needed to reach everything.
fn merge(target: &str) -> Result<PathBuf, Failure> {
    let (found, kept) = corpora(target)?;
    let merged = build_folder().join("merged").join(target);
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged).doing(format_args!("make {}", merged.display()))?;
    let mut merging = cargo_fuzz(target, &[&merged, &kept, &found]);
    // By what is reached, not how often: a tenth of the inputs.
    merging.args(["-merge=1", "-use_counters=0"]).stdout(Stdio::null());
    command::show(&mut merging).map(|()| merged)
}

fn named(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).doing(format_args!("read {}", folder.display()))? {
        let entry = entry.doing(format_args!("read {}", folder.display()))?;
        if wanted(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
