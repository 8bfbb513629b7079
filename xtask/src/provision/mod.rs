//! Makes the real components available: Keycloak, HAPI's two servers, Newman, Prometheus, Envoy, h2spec, SPIRE.
//!
//! Each lies in its own folder of the cache, made aside and renamed into place whole, so a run that
//! was cut short leaves nothing that looks finished. One run at a time works on a cache.

mod java;
mod parts;
mod tools;

mod bpf_linker;
mod envoy;
mod golang;
mod h2spec;
mod installed;
mod keycloak;
mod newman;
mod prometheus;
mod spire;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use parts::{Part, cache, ready};
pub use tools::is_root;

use crate::command::{Context, Failure, say};

/// Downloads fail now and then; a further attempt starts from what is already there.
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(3);

/// Makes the named parts available; all that tests need when none is named. What is there is kept.
///
/// # Errors
/// One sentence that names what is missing or failed.
pub fn provision(parts: &[Part]) -> Result<(), Failure> {
    let parts = if parts.is_empty() { Part::ALL } else { parts };
    let cache = cache();
    fs::create_dir_all(&cache).doing(format_args!("make {}", cache.display()))?;
    let _one_at_a_time = lock(&cache)?;
    remove_leftovers(&cache)?;

    let missing: Vec<Part> = parts.iter().copied().filter(|part| ready(*part).is_err()).collect();
    tools::ensure(&missing)?;
    for part in parts {
        if missing.contains(part) {
            make(*part, &cache)?;
        } else {
            say(&format!("{part}: there already"));
        }
    }
    Ok(())
}

/// Makes what builds the BPF object available: the linker, and Debian's packages, which may be missing
/// where the linker is not, since they lie outside the cache.
///
/// # Errors
/// One sentence that names what is missing or failed.
pub fn bpf_toolchain() -> Result<PathBuf, Failure> {
    tools::ensure(&[Part::BpfLinker])?;
    provision(&[Part::BpfLinker])?;
    Ok(Part::BpfLinker.folder().join("bin"))
}

/// Makes available what the tests of capture need beside the house: all of it is Debian's, and lies
/// outside the cache.
///
/// # Errors
/// One sentence that names what is missing or failed.
pub fn pods() -> Result<(), Failure> {
    tools::ensure(&[Part::Pods])?;
    provision(&[Part::Pods])
}

/// Builds one part aside, stamps it, and puts it in its place.
fn make(part: Part, cache: &Path) -> Result<(), Failure> {
    say(&format!("{part}: being made"));
    let started = Instant::now();
    let workshop = Workshop::new(part, cache)?;
    match part {
        Part::Keycloak => keycloak::make(&workshop),
        Part::Hapi | Part::HapiJpa | Part::FhirGateway => java::make(part, &workshop),
        Part::Newman => newman::make(&workshop),
        Part::Haproxy => installed::make(&workshop, &[("haproxy", "-v")]),
        Part::Iptables => installed::make(&workshop, &[("iptables", "--version"), ("bpftool", "version")]),
        Part::Pods => {
            installed::make(&workshop, &[("ip", "-V"), ("curl", "--version"), ("psql", "--version")])
        }
        Part::Prometheus => prometheus::make(&workshop),
        Part::Envoy => envoy::make(&workshop),
        Part::H2spec => h2spec::make(&workshop),
        Part::Spire => spire::make(&workshop),
        Part::BpfLinker => bpf_linker::make(&workshop),
    }
    .map_err(|failure| Failure(format!("{part} cannot be provisioned: {failure}")))?;
    workshop.install(part, cache)?;
    say(&format!("{part}: made in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// The folders of one part's making.
struct Workshop {
    /// Becomes the part's folder.
    out: PathBuf,
    /// For what is needed on the way only.
    scratch: PathBuf,
    /// Maven's local repository, shared by all parts.
    maven_repository: PathBuf,
}

impl Workshop {
    fn new(part: Part, cache: &Path) -> Result<Self, Failure> {
        let workshop = Self {
            out: cache.join(format!("tmp-{part}")),
            scratch: cache.join(format!("tmp-{part}-scratch")),
            maven_repository: cache.join("m2"),
        };
        for folder in [&workshop.out, &workshop.scratch, &workshop.maven_repository] {
            fs::create_dir_all(folder).doing(format_args!("make {}", folder.display()))?;
        }
        Ok(workshop)
    }

    fn log(&self, step: &str) -> PathBuf {
        self.scratch.join(format!("{step}.log"))
    }

    fn install(&self, part: Part, cache: &Path) -> Result<(), Failure> {
        let stamp = self.out.join(parts::STAMP);
        fs::write(&stamp, part.version()?).doing(format_args!("write {}", stamp.display()))?;
        let place = part.folder();
        if place.exists() {
            let old = cache.join(format!("tmp-{part}-old"));
            fs::rename(&place, &old).doing(format_args!("move {} aside", place.display()))?;
        }
        fs::rename(&self.out, &place).doing(format_args!("put {} in place", place.display()))?;
        remove_leftovers(cache)
    }
}

/// Runs a step that uses the network, again when it fails.
fn with_retries(step: impl Fn() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut attempt = 1;
    loop {
        match step() {
            Err(failure) if attempt < ATTEMPTS => {
                say(&format!("attempt {attempt} of {ATTEMPTS} failed: {failure}"));
                thread::sleep(BETWEEN_ATTEMPTS);
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Held until the file is dropped; the kernel lets go of it when a process dies.
fn lock(cache: &Path) -> Result<File, Failure> {
    let path = cache.join("lock");
    let file = File::create(&path).doing(format_args!("write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => say("waiting for another provisioning to end"),
        Err(TryLockError::Error(error)) => {
            return Err(Failure(format!("cannot lock {}: {error}", path.display())));
        }
    }
    file.lock().doing(format_args!("lock {}", path.display()))?;
    Ok(file)
}

fn remove_leftovers(cache: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(cache).doing(format_args!("read {}", cache.display()))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("tmp-") {
            let path = entry.path();
            fs::remove_dir_all(&path).doing(format_args!("remove {}", path.display()))?;
        }
    }
    Ok(())
}
