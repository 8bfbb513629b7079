//! What the programs themselves take: the kernel counts their runs and their time while
//! `kernel.bpf_stats_enabled` is set (which costs some of that time itself).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::measure;
use super::ways::{Led, Way};
use super::world::{World, WorldError};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Nanoseconds for each connection with one request, opened to closed, all pods together.
#[derive(Debug, Clone, Serialize)]
pub struct Hooks {
    /// Connections.
    pub connects: u64,
    /// By program.
    pub programs: BTreeMap<String, Program>,
}

/// One program's part.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Program {
    /// Runs for each connection.
    pub runs: f64,
    /// Nanoseconds for each connection.
    pub nanoseconds: f64,
}

impl Hooks {
    /// Nanoseconds of all programs.
    #[must_use]
    pub fn nanoseconds(&self) -> f64 {
        self.programs.values().map(|program| program.nanoseconds).sum()
    }

    /// Nanoseconds of those that only a connection's beginning and end run, not its packets.
    #[must_use]
    pub fn of_connecting(&self) -> f64 {
        let packets = |name: &str| name.contains("guard") || name == "accelerate";
        self.programs.iter().filter(|(name, _)| !packets(name)).map(|(_, program)| program.nanoseconds).sum()
    }
}

/// Set for as long as this lives.
struct Switch(String);

impl Switch {
    fn on() -> std::io::Result<Self> {
        let before = fs::read_to_string(SWITCH)?;
        fs::write(SWITCH, "1")?;
        Ok(Self(before))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, self.0.trim());
    }
}

/// Runs and nanoseconds by program, from connections of the captured raw TCP.
///
/// # Errors
/// Without `bpftool`, or when the connections fail.
pub fn measure(world: &mut World, span: Duration) -> Result<Hooks, WorldError> {
    let ids = programs(&world.pins())?;
    let switch = Switch::on()?;
    let from = times(&ids)?;
    measure::connects(world, Way::Tcp(Led::Bpf), span)?;
    let to = times(&ids)?;
    drop(switch);
    // Counted by the first program of each connection: those of the warm-up are among them.
    let connects = |times: &Times| {
        let named = times.values().filter(|(name, ..)| name == "connect4");
        named.map(|(_, runs, _)| *runs).sum::<u64>()
    };
    let connects = connects(&to).saturating_sub(connects(&from));
    #[allow(clippy::cast_precision_loss)]
    let each = |value: u64| value as f64 / connects.max(1) as f64;
    let mut programs: BTreeMap<String, Program> = BTreeMap::new();
    for (id, (name, runs, nanoseconds)) in to {
        let (_, runs_before, before) = from.get(&id).cloned().unwrap_or_default();
        let program = programs.entry(name).or_default();
        program.runs += each(runs.saturating_sub(runs_before));
        program.nanoseconds += each(nanoseconds.saturating_sub(before));
    }
    programs.retain(|_, program| program.runs > 0.0);
    Ok(Hooks { connects, programs })
}

/// The programs behind the links that are pinned.
fn programs(pins: &Path) -> Result<Vec<u64>, WorldError> {
    let mut ids = Vec::new();
    for link in files(pins).iter().filter(|path| path.iter().any(|part| part == "links")) {
        let told = bpftool(&["link", "show", "pinned", &link.display().to_string()])?;
        ids.extend(told.get("prog_id").and_then(Value::as_u64));
    }
    if ids.is_empty() {
        return Err(WorldError::Wrong("no program is pinned".to_owned()));
    }
    Ok(ids)
}

type Times = BTreeMap<u64, (String, u64, u64)>;

fn times(ids: &[u64]) -> Result<Times, WorldError> {
    let told = bpftool(&["prog", "show"])?;
    let of = |program: &Value| {
        let number = |name: &str| program.get(name).and_then(Value::as_u64);
        let id = number("id").filter(|id| ids.contains(id))?;
        let name = program.get("name").and_then(Value::as_str)?.to_owned();
        Some((id, (name, number("run_cnt").unwrap_or(0), number("run_time_ns").unwrap_or(0))))
    };
    Ok(told.as_array().into_iter().flatten().filter_map(of).collect())
}

fn bpftool(words: &[&str]) -> Result<Value, WorldError> {
    let output = Command::new("bpftool").arg("-j").args(words).output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| WorldError::Wrong(format!("bpftool: {error}")))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { files(&path) } else { vec![path] }
    });
    found.collect()
}
