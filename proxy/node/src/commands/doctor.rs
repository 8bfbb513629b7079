//! `fhirward doctor`

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use loader::doctor::{Check, Probe, probe};

use super::{UNUSABLE, complain, say};
use crate::{Settings, problems, settings::CaptureSettings};

#[derive(clap::Args)]
pub struct Arguments {
    /// Settings file, whose pin folder and cgroup tree are looked at; their defaults where not given.
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let capture = match self.config.as_deref().map(Settings::load).transpose() {
            Ok(settings) => settings.and_then(|settings| settings.capture).unwrap_or_default(),
            Err(problem) => {
                complain(&problems::line(&problem));
                return ExitCode::from(UNUSABLE);
            }
        };
        let CaptureSettings { pin_path, cgroup_root, .. } = capture;
        let checks = probe(&Probe { bpffs: pin_path, cgroup_root });
        say(&text(&checks));
        if checks.iter().all(|check| check.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn text(checks: &[Check]) -> String {
    let mut page = String::new();
    for Check { name, ok, found, remedy } in checks {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{} {name}: {found}", if *ok { "ok     " } else { "MISSING" });
        if !ok && !remedy.is_empty() {
            let _ = writeln!(page, "        -> {remedy}");
        }
    }
    page.push_str(if checks.iter().all(|check| check.ok) {
        "this node can capture\n"
    } else {
        "this node cannot capture until the above is mended\n"
    });
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_remedy() {
        let check = |name: &str, ok, remedy: &str| Check {
            name: name.to_owned(),
            ok,
            found: "5.4".to_owned(),
            remedy: remedy.to_owned(),
        };
        let page = text(&[check("kernel version", false, "boot 6.6 or later"), check("bpffs", true, "")]);
        assert!(page.contains("MISSING kernel version: 5.4\n        -> boot 6.6 or later\n"), "{page}");
        assert!(page.contains("ok      bpffs") && page.contains("cannot capture"), "{page}");
        assert!(text(&[check("bpffs", true, "")]).contains("can capture"));
    }
}
