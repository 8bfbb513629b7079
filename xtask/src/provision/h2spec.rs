//! h2spec, the HTTP/2 conformance tests of the summerwind project, built from the sources that
//! `go.sum` names.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Part, Workshop, with_retries};
use crate::command::{self, Context, Failure};

/// What `go.mod` asks for, and Debian 12 has.
const OLDEST_GO: (u32, u32) = (1, 19);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
/// A first build compiles Go's own library too.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const VERSION_LIMIT: Duration = Duration::from_secs(60);
const PROGRAM: &str = "github.com/summerwind/h2spec/cmd/h2spec";

/// Gives `bin/h2spec`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    check_go()?;
    let module = workshop.scratch.join("module");
    fs::create_dir_all(&module).doing(format_args!("make {}", module.display()))?;
    for file in ["go.mod", "go.sum", "tools.go"] {
        fs::copy(Part::H2spec.source().join(file), module.join(file)).doing(format_args!("copy {file}"))?;
    }
    with_retries(|| {
        let mut go = go();
        go.current_dir(&module).args(["mod", "download"]);
        command::quiet(&mut go, &workshop.log("download"), DOWNLOAD_LIMIT)
    })?;
    let program = workshop.out.join("bin/h2spec");
    let mut build = go();
    build.current_dir(&module).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]);
    command::quiet(build.arg(&program).arg(PROGRAM), &workshop.log("build"), BUILD_LIMIT)?;
    command::quiet(Command::new(&program).arg("--version"), &workshop.log("version"), VERSION_LIMIT)
}

/// Nothing but what is committed decides what is built: no workspace, no other flags, no other Go.
fn go() -> Command {
    let mut go = Command::new("go");
    go.env("GOFLAGS", "-mod=readonly").env("GOWORK", "off").env("GOTOOLCHAIN", "local");
    go.env("CGO_ENABLED", "0");
    go
}

fn check_go() -> Result<(), Failure> {
    let said = command::output("go", &["env", "GOVERSION"])
        .ok_or_else(|| Failure("there is no go on the PATH that runs".to_owned()))?;
    let said = said.trim();
    match version(said) {
        Some(version) if version >= OLDEST_GO => Ok(()),
        _ => Err(Failure(format!("Go {}.{} or newer is needed, and go is {said}", OLDEST_GO.0, OLDEST_GO.1))),
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
