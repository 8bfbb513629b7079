//! Keycloak: the distribution its project publishes, unpacked and augmented once for all later starts.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;
use std::time::Duration;

use super::parts::KEYCLOAK;
use super::{Workshop, java, with_retries};
use crate::command::{self, Context, Failure};

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
const UNPACK_LIMIT: Duration = Duration::from_secs(120);
const AUGMENT_LIMIT: Duration = Duration::from_secs(300);

const GET: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get";
/// What Quarkus builds in. A start with `--optimized` keeps to it and saves the 20 s of building.
const BUILD: &[&str] = &["build", "--db=dev-file", "--health-enabled=true", "--metrics-enabled=true"];

/// Changes when the build options do.
pub(super) fn build_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    BUILD.hash(&mut hasher);
    hasher.finish()
}

/// Gives the distribution's own folders: `bin`, `lib`, `conf`, `providers`, `themes`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    with_retries(|| download(workshop))?;
    unpack(workshop)?;
    let mut build = Command::new(workshop.out.join("bin/kc.sh"));
    build.args(BUILD).env("HOME", &workshop.scratch);
    command::quiet(&mut build, &workshop.log("augment"), AUGMENT_LIMIT)
}

fn download(workshop: &Workshop) -> Result<(), Failure> {
    let mut mvn = java::maven(workshop);
    mvn.current_dir(&workshop.scratch).arg(GET).arg("-Dtransitive=false");
    mvn.arg(format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:zip"));
    command::quiet(&mut mvn, &workshop.log("maven"), DOWNLOAD_LIMIT)
}

fn unpack(workshop: &Workshop) -> Result<(), Failure> {
    let folder = workshop.maven_repository.join("org/keycloak/keycloak-quarkus-dist").join(KEYCLOAK);
    let archive = folder.join(format!("keycloak-quarkus-dist-{KEYCLOAK}.zip"));
    let mut unzip = Command::new("unzip");
    unzip.arg("-q").arg(&archive).arg("-d").arg(&workshop.scratch);
    command::quiet(&mut unzip, &workshop.log("unzip"), UNPACK_LIMIT)?;
    let unpacked = workshop.scratch.join(format!("keycloak-{KEYCLOAK}"));
    fs::remove_dir(&workshop.out).doing("clear the way for Keycloak's folder")?;
    fs::rename(&unpacked, &workshop.out).doing(format_args!("find {}", unpacked.display()))
}
