//! Prometheus from Debian, unpacked rather than installed: nothing is started, and no root is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Workshop, tools, with_retries};
use crate::command::{self, Context, Failure};

const APT_LIMIT: Duration = Duration::from_secs(300);

/// Gives `bin/prometheus`: the one that is installed here, else Debian's.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    let bin = workshop.out.join("bin");
    fs::create_dir_all(&bin).doing(format_args!("make {}", bin.display()))?;
    let program = bin.join("prometheus");
    if let Some(installed) = command::find("prometheus") {
        symlink(&installed, &program).doing("link to the installed prometheus")?;
    } else {
        let unpacked = unpack(workshop)?;
        fs::rename(&unpacked, &program).doing(format_args!("find {}", unpacked.display()))?;
    }
    command::quiet(Command::new(&program).arg("--version"), &workshop.log("version"), APT_LIMIT)
}

fn unpack(workshop: &Workshop) -> Result<PathBuf, Failure> {
    if command::find("apt-get").is_none() {
        return Err(Failure("there is no prometheus on the PATH and no apt-get here".to_owned()));
    }
    if download(workshop).is_err() {
        // A fresh machine has no lists of packages yet, or old ones.
        if !tools::is_root() {
            return Err(Failure("apt-get cannot download prometheus; as root: apt-get update".to_owned()));
        }
        tools::update_lists()?;
        with_retries(|| download(workshop))?;
    }
    let package = package(workshop)?;
    let folder = workshop.scratch.join("unpacked");
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("-x").arg(&package).arg(&folder);
    command::quiet(&mut dpkg, &workshop.log("dpkg"), APT_LIMIT)?;
    Ok(folder.join("usr/bin/prometheus"))
}

fn download(workshop: &Workshop) -> Result<(), Failure> {
    let mut apt = Command::new("apt-get");
    apt.current_dir(&workshop.scratch).args(["-q", "download", "prometheus"]);
    command::quiet(&mut apt, &workshop.log("apt"), APT_LIMIT)
}

fn package(workshop: &Workshop) -> Result<PathBuf, Failure> {
    let entries = fs::read_dir(&workshop.scratch).doing("read what apt-get downloaded")?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Failure("apt-get downloaded no prometheus package".to_owned()))
}
