//! The programs that the making of the parts needs, installed from Debian where they are missing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Part, cache, with_retries};
use crate::command::{self, Failure, say};

/// HAPI 8 and Keycloak 26 both need it.
const OLDEST_JAVA: u32 = 17;
const APT_LIMIT: Duration = Duration::from_secs(900);

struct Tool {
    /// A program of the PATH, or the path of a file that the package holds.
    program: &'static str,
    package: &'static str,
    /// Arguments with which the program succeeds only where it is complete; none where being there will do.
    proof: &'static [&'static str],
    needed_by: &'static [Part],
}

const JAVA_PARTS: &[Part] = &[Part::Keycloak, Part::Hapi, Part::HapiJpa, Part::FhirGateway];

const TOOLS: &[Tool] = &[
    // The compiler, not only the runtime: two of the parts are ours to compile.
    Tool { program: "javac", package: "default-jdk-headless", proof: &[], needed_by: JAVA_PARTS },
    Tool { program: "mvn", package: "maven", proof: &[], needed_by: JAVA_PARTS },
    Tool { program: "unzip", package: "unzip", proof: &[], needed_by: &[Part::Keycloak] },
    Tool { program: "haproxy", package: "haproxy", proof: &[], needed_by: &[Part::Haproxy] },
    Tool { program: "iptables", package: "iptables", proof: &[], needed_by: &[Part::Iptables] },
    Tool { program: "bpftool", package: "bpftool", proof: &[], needed_by: &[Part::Iptables] },
    Tool { program: "node", package: "nodejs", proof: &[], needed_by: &[Part::Newman] },
    Tool { program: "npm", package: "npm", proof: &[], needed_by: &[Part::Newman] },
    // Debian's python3 comes without what a virtual environment is made of.
    Tool {
        program: "python3",
        package: "python3-venv",
        proof: &["-c", "import ensurepip, venv"],
        needed_by: &[Part::Envoy],
    },
    // Clients and bad servers of the mesh's mTLS, beside Envoy.
    Tool {
        program: "openssl",
        package: "openssl",
        proof: &["version"],
        needed_by: &[Part::Envoy, Part::Spire],
    },
    Tool { program: "curl", package: "curl", proof: &[], needed_by: &[Part::Envoy] },
    Tool {
        program: "go",
        package: "golang-go",
        proof: &["version"],
        needed_by: &[Part::H2spec, Part::Spire],
    },
    Tool { program: "cc", package: "gcc", proof: &["--version"], needed_by: &[Part::Spire] },
    Tool { program: "/usr/include/stdlib.h", package: "libc6-dev", proof: &[], needed_by: &[Part::Spire] },
    pods("ip", "iproute2"),
    pods("nsenter", "util-linux"),
    pods("setpriv", "util-linux"),
    pods("python3", "python3-minimal"),
    pods("curl", "curl"),
    pods("nc", "netcat-openbsd"),
    // What the loader left in the kernel, told by another's program.
    pods("bpftool", "bpftool"),
    pods("javac", "default-jdk-headless"),
    pods("go", "golang-go"),
    pods("psql", "postgresql-client"),
    // Of the server's package; the server itself lies in no folder of the PATH.
    pods("pg_ctlcluster", "postgresql"),
    bpf("/usr/bin/rustc", "rustc-web"),
    bpf("/usr/lib/rustlib/bpfel-unknown-none/lib", "libstd-rust-web-dev-bpf"),
    bpf("/usr/lib/llvm-22/bin/llvm-config", "llvm-22-dev"),
    bpf("/usr/lib/llvm-22/lib/libPolly.a", "libpolly-22-dev"),
    bpf("/usr/include/zlib.h", "zlib1g-dev"),
    bpf("/usr/include/zstd.h", "libzstd-dev"),
];

const fn pods(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, proof: &[], needed_by: &[Part::Pods] }
}

const fn bpf(file: &'static str, package: &'static str) -> Tool {
    Tool { program: file, package, proof: &[], needed_by: &[Part::BpfLinker] }
}

impl Tool {
    fn is_there(&self) -> bool {
        if self.program.starts_with('/') {
            return Path::new(self.program).exists();
        }
        command::find(self.program).is_some()
            && (self.proof.is_empty() || command::output(self.program, self.proof).is_some())
    }
}

/// Installs what `parts` need and this machine lacks. A program that is there is used as it is.
pub(super) fn ensure(parts: &[Part]) -> Result<(), Failure> {
    let missing: Vec<&Tool> = TOOLS
        .iter()
        .filter(|tool| tool.needed_by.iter().any(|part| parts.contains(part)))
        .filter(|tool| !tool.is_there())
        .collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    if parts.iter().any(|part| JAVA_PARTS.contains(part)) {
        check_java()?;
    }
    Ok(())
}

fn install(missing: &[&Tool]) -> Result<(), Failure> {
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let (programs, list) = (programs.join(", "), packages.join(" "));
    if command::find("apt-get").is_none() {
        return Err(Failure(format!("{programs} missing, and there is no apt-get here to install {list}")));
    }
    if !is_root() {
        return Err(Failure(format!(
            "{programs} missing; as root: apt-get install --no-install-recommends {list}"
        )));
    }
    say(&format!("installing {list}"));
    update_lists()?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&packages);
    with_retries(|| apt(&words))?;
    missing.iter().find(|tool| !tool.is_there()).map_or(Ok(()), |tool| {
        Err(Failure(format!("{} is still missing after installing {}", tool.program, tool.package)))
    })
}

/// Fetches the lists of packages anew.
pub(super) fn update_lists() -> Result<(), Failure> {
    with_retries(|| apt(&["update"]))
}

/// Whether this process may install packages and make network namespaces.
pub fn is_root() -> bool {
    command::output("id", &["-u"]).is_some_and(|text| text.trim() == "0")
}

fn apt(words: &[&str]) -> Result<(), Failure> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt may be at work on a machine that has just come up.
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(words);
    command::quiet(&mut apt, &cache().join("apt.log"), APT_LIMIT)
}

fn check_java() -> Result<(), Failure> {
    let said =
        command::output("javac", &["-version"]).ok_or_else(|| Failure("javac cannot be run".to_owned()))?;
    let version = said.trim().trim_start_matches("javac ");
    let major = version.split('.').next().and_then(|digits| digits.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST_JAVA => Ok(()),
        _ => Err(Failure(format!("Java {OLDEST_JAVA} or newer is needed, and javac is {version}"))),
    }
}
