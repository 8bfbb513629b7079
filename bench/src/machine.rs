//! What it was measured on, and what: no names of hosts, users or folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::peers::Programs;

/// The versions that the bare proxy was built with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Machine, date and versions.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
    /// As `/proc/cpuinfo` names it.
    pub cpu: String,
    /// How many there are.
    pub cores: usize,
    /// MiB.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Of this repository; with `+` where files differ from it.
    pub commit: String,
    /// What each peer says of itself.
    pub versions: BTreeMap<&'static str, String>,
}

impl Machine {
    /// Looks around. `cores` as they were before anything was pinned.
    #[must_use]
    pub fn look(programs: &Programs, cores: usize) -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpu = file("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field(&file("/proc/meminfo"), "MemTotal");
        let memory = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024;
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            cpu: field(&cpu, "model name"),
            cores,
            memory,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            commit: commit(),
            versions: versions(programs),
        }
    }

    /// One sentence.
    #[must_use]
    pub fn line(&self) -> String {
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!(
            "{}; {} ({} cores), {} MiB, Linux {}; commit {}; {}",
            self.date,
            self.cpu,
            self.cores,
            self.memory,
            self.kernel,
            self.commit,
            versions.join(", ")
        )
    }

    /// A word for the class of machine, for names of files.
    #[must_use]
    pub fn class(&self) -> String {
        let word: String = self
            .cpu
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let word: Vec<&str> =
            word.split('-').filter(|part| !matches!(*part, "" | "r" | "tm" | "cpu" | "processor")).collect();
        format!("{}-{}core", word.join("-"), self.cores)
    }
}

fn commit() -> String {
    let hash = first_line(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    let changed = Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]).output();
    let changed = changed.is_ok_and(|output| !output.stdout.is_empty());
    format!("{hash}{}", if changed { "+" } else { "" })
}

fn versions(programs: &Programs) -> BTreeMap<&'static str, String> {
    let mut versions = BTreeMap::new();
    versions.insert("bare", format!("hyper {}, tokio {}", locked("hyper"), locked("tokio")));
    versions.insert(
        "fhirward",
        word(&first_line(Command::new(programs.ours.join("fhirward")).arg("--version")), 1),
    );
    if let Some(envoy) = &programs.envoy {
        let told = first_line(Command::new(envoy).arg("--version"));
        // path, "version:", then hash/version/…
        versions.insert("envoy", told.split('/').rev().nth(3).unwrap_or(&told).to_owned());
    }
    if let Some(haproxy) = &programs.haproxy {
        versions.insert("haproxy", word(&first_line(Command::new(haproxy).arg("-v")), 2));
    }
    if let Some(folder) = &programs.fhir_gateway {
        versions.insert("fhir-gateway", gateway(folder));
    }
    versions
}

/// From the name of the library.
fn gateway(folder: &Path) -> String {
    let names = fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let jar = names.find_map(|name| Some(name.strip_prefix("plugins-")?.strip_suffix(".jar")?.to_owned()));
    jar.unwrap_or_else(|| "unknown".to_owned())
}

fn locked(name: &str) -> &'static str {
    let named = format!("name = \"{name}\"\n");
    let after = LOCK.split_once(&named).map_or("", |(_, after)| after);
    after.split('"').nth(1).unwrap_or("unknown")
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned()
}

fn word(line: &str, index: usize) -> String {
    line.split_whitespace().nth(index).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_knows_what_the_bare_proxy_is_made_of() {
        assert!(locked("hyper").starts_with("1."), "{}", locked("hyper"));
        assert_eq!(locked("no such crate"), "unknown");
    }
}
