//! Programs of Go modules, built from the sources that `go.sum` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Part, Workshop, with_retries};
use crate::command::{self, Context, Failure};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
/// A first build compiles Go's own library too.
const BUILD_LIMIT: Duration = Duration::from_secs(1_800);
const VERSION_LIMIT: Duration = Duration::from_secs(60);

/// What is fetched where the machine's own Go is too old.
const TOOLCHAIN: &str = "v0.0.1-go1.24.9";

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
    let program = compiler(workshop, build.oldest_go)?;
    let module = workshop.scratch.join("module");
    fs::create_dir_all(&module).doing(format_args!("make {}", module.display()))?;
    for file in ["go.mod", "go.sum", "tools.go"] {
        fs::copy(build.part.source().join(file), module.join(file)).doing(format_args!("copy {file}"))?;
    }
    let go = || {
        let mut go = go(&program, workshop, build);
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
fn go(program: &Path, workshop: &Workshop, build: &Build) -> Command {
    let mut go = Command::new(program);
    // Of another Go, where one is set for the one on the PATH.
    go.env_remove("GOROOT");
    // Modules that can be written to can be removed.
    go.env("GOFLAGS", "-mod=readonly -modcacherw").env("GOWORK", "off").env("GOTOOLCHAIN", "local");
    go.env("CGO_ENABLED", if build.c { "1" } else { "0" }).env("CGO_CFLAGS", "-O0");
    go.env("GOMODCACHE", workshop.scratch.join("modules")).env("GOCACHE", workshop.scratch.join("objects"));
    go
}

/// The machine's Go, or, where that is too old (Debian 12 has 1.19), a newer one, which is a module as
/// any other: `go` itself checks its sum.
fn compiler(workshop: &Workshop, oldest: (u32, u32)) -> Result<PathBuf, Failure> {
    let own = command::output("go", &["env", "GOVERSION"])
        .ok_or_else(|| Failure("there is no go on the PATH that runs".to_owned()))?;
    if version(own.trim()).is_some_and(|version| version >= oldest) {
        return Ok("go".into());
    }
    let arch = command::output("go", &["env", "GOARCH"]).unwrap_or_default();
    let name = format!("golang.org/toolchain@{TOOLCHAIN}.linux-{}", arch.trim());
    let modules = workshop.scratch.join("toolchain");
    with_retries(|| {
        let mut fetch = Command::new("go");
        fetch.args(["mod", "download", &name]).current_dir(&workshop.scratch);
        fetch.env("GOFLAGS", "-modcacherw").env("GOWORK", "off").env("GOMODCACHE", &modules);
        command::quiet(&mut fetch, &workshop.log("toolchain"), DOWNLOAD_LIMIT)
    })?;
    let root = modules.join(&name);
    // Files of a module have no modes.
    let mut executable = Command::new("chmod");
    executable.args(["-R", "+x"]).args([root.join("bin"), root.join("pkg/tool")]);
    command::quiet(&mut executable, &workshop.log("toolchain"), VERSION_LIMIT)?;
    Ok(root.join("bin/go"))
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
