//! HAPI's two servers: small Maven projects of ours, compiled, with all jars beside them in `lib`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Part, Workshop, with_retries};
use crate::command::{self, Context, Failure};

const MAVEN_LIMIT: Duration = Duration::from_secs(900);

/// Gives `server.jar` and `lib/*.jar`. The project is copied first: Maven writes beside its sources.
pub(super) fn make(part: Part, workshop: &Workshop) -> Result<(), Failure> {
    let project = workshop.scratch.join("project");
    copy_folder(&part.source(), &project)?;
    let lib = workshop.out.join("lib");
    with_retries(|| {
        let mut mvn = maven(workshop);
        mvn.current_dir(&project).args(["package", "dependency:copy-dependencies"]);
        mvn.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", lib.display()));
        command::quiet(&mut mvn, &workshop.log("maven"), MAVEN_LIMIT)
    })?;
    let jar = project.join(format!("target/{part}-1.jar"));
    let place = workshop.out.join("server.jar");
    fs::rename(&jar, &place).doing(format_args!("find {}", jar.display()))
}

/// Maven with the cache's own repository, so that nothing outside the cache is written.
pub(super) fn maven(workshop: &Workshop) -> Command {
    let mut mvn = Command::new("mvn");
    mvn.args(["-B", "-ntp", "-q"]);
    mvn.arg(format!("-Dmaven.repo.local={}", workshop.maven_repository.display()));
    mvn
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).doing(format_args!("make {}", to.display()))?;
    let entries = fs::read_dir(from).doing(format_args!("read {}", from.display()))?;
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(&source, &target).doing(format_args!("copy {}", source.display()))?;
        }
    }
    Ok(())
}
