//! Programs of Go modules, built from the sources that `go.sum` names.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Part, Workshop, with_retries};
use crate::command::{self, Context, Failure};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
/// A first build compiles Go's own library too.
const BUILD_LIMIT: Duration = Duration::from_secs(1_800);
const VERSION_LIMIT: Duration = Duration::from_secs(60);

/// What to build, and how. The part's folder in the tree holds `go.mod`, `go.sum` and `tools.go`.
pub(super) struct Build {
    pub(super) part: Part,
    /// Packages of programs; each is `bin/<last segment>` afterwards.
    pub(super) programs: &'static [&'static str],
    /// What `go.mod` asks for.
    pub(super) oldest_go: (u32, u32),
    /// Whether C is compiled too.
    pub(super) c: bool,
    /// Passed to `go build`.
    pub(super) flags: &'static [&'static str],
}

/// Gives `bin` with the programs. Modules and objects are of no use afterwards: they go with the scratch.
pub(super) fn make(workshop: &Workshop, build: &Build) -> Result<(), Failure> {
    check_go(build.oldest_go)?;
    let module = workshop.scratch.join("module");
    fs::create_dir_all(&module).doing(format_args!("make {}", module.display()))?;
    for file in ["go.mod", "go.sum", "tools.go"] {
        fs::copy(build.part.source().join(file), module.join(file)).doing(format_args!("copy {file}"))?;
    }
    let go = || {
        let mut go = go(workshop, build);
        go.current_dir(&module);
        go
    };
    // No more than what the programs are made of; `go mod download` would fetch what their tests need.
    with_retries(|| {
        let mut list = go();
        list.args(["list", "-deps"]).args(build.programs);
        command::quiet(&mut list, &workshop.log("download"), DOWNLOAD_LIMIT)
    })?;
    let bin = workshop.out.join("bin");
    fs::create_dir_all(&bin).doing(format_args!("make {}", bin.display()))?;
    let mut compile = go();
    compile.args(["build", "-trimpath", "-ldflags", "-s -w"]).args(build.flags).arg("-o").arg(&bin);
    command::quiet(compile.args(build.programs), &workshop.log("build"), BUILD_LIMIT)?;
    for program in build.programs {
        let program: PathBuf = bin.join(program.rsplit('/').next().unwrap_or(program));
        command::quiet(Command::new(&program).arg("--version"), &workshop.log("version"), VERSION_LIMIT)?;
    }
    Ok(())
}

/// Nothing but what is committed decides what is built: no workspace, no other flags, no other Go.
fn go(workshop: &Workshop, build: &Build) -> Command {
    let mut go = Command::new("go");
    // Modules that can be written to can be removed.
    go.env("GOFLAGS", "-mod=readonly -modcacherw").env("GOWORK", "off").env("GOTOOLCHAIN", "local");
    go.env("CGO_ENABLED", if build.c { "1" } else { "0" }).env("CGO_CFLAGS", "-O0");
    go.env("GOMODCACHE", workshop.scratch.join("modules")).env("GOCACHE", workshop.scratch.join("objects"));
    go
}

fn check_go(oldest: (u32, u32)) -> Result<(), Failure> {
    let said = command::output("go", &["env", "GOVERSION"])
        .ok_or_else(|| Failure("there is no go on the PATH that runs".to_owned()))?;
    let said = said.trim();
    match version(said) {
        Some(version) if version >= oldest => Ok(()),
        _ => Err(Failure(format!("Go {}.{} or newer is needed, and go is {said}", oldest.0, oldest.1))),
    }
}

/// `go1.26.8` -> (1, 26)
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.strip_prefix("go")?.split('.');
    let minor = numbers.clone().nth(1)?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((numbers.next()?.parse().ok()?, minor.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.19"), Some((1, 19)));
        assert_eq!(version("go1.22rc1"), Some((1, 22)));
        assert_eq!(version("devel"), None);
    }
}
