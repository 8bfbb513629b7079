//! `cargo xtask bpf`: builds the BPF object from `ebpf-redirect/programs`, and compares it with the
//! committed one.
//!
//! The bytes depend on the compilers alone, not on where the sources or the registry lie. Which ones made
//! the committed object stands beside it: Debian updates its compiler now and then, and then a rebuild
//! can say that the sources still build, but not that the bytes are theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;

use crate::command::{self, Context, Failure, root, say};
use crate::provision;

/// The compiler with a core library for BPF. rustup has none without the sources of the standard library.
const RUSTC: &str = "/usr/bin/rustc";
const LLVM: &str = "/usr/lib/llvm-22/bin";
const TARGET: &str = "bpfel-unknown-none";
/// Name of the binary in `programs`.
const BINARY: &str = "fhirward";
const BUILD_LIMIT: Duration = Duration::from_secs(900);
const STRIP_LIMIT: Duration = Duration::from_secs(60);

/// Whose registers and helpers the object is for. Both run the same little-endian BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86_64,
    /// ARM, 64 bits.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Architecture {
    const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// Builds the object and puts it, with the names of the compilers, in its place; with `check`, only
/// compares.
///
/// # Errors
/// What is missing or failed; with `check`, also that the committed object is not what the sources give.
pub fn bpf(architecture: Architecture, check: bool) -> Result<(), Failure> {
    let linker = provision::bpf_toolchain()?;
    let folder = root().join("ebpf-redirect");
    let object = folder.join(format!("fhirward-{}.o", architecture.name()));
    let compilers = folder.join(format!("fhirward-{}.compilers", architecture.name()));
    let made = build(architecture, &folder, &linker)?;
    let made_by = compilers_here(&linker)?;
    if !check {
        fs::write(&object, made).doing(format_args!("write {}", object.display()))?;
        fs::write(&compilers, made_by).doing(format_args!("write {}", compilers.display()))?;
        say(&format!("wrote {}", object.display()));
        return Ok(());
    }
    let committed = fs::read(&object).doing(format_args!("read {}", object.display()))?;
    let committed_by = fs::read_to_string(&compilers).doing(format_args!("read {}", compilers.display()))?;
    if committed == made {
        say("the committed BPF object is what its sources give, byte for byte");
        return Ok(());
    }
    if committed_by == made_by {
        return Err(Failure(format!(
            "{} is not what its sources give: run `cargo xtask bpf` and commit the object",
            object.display()
        )));
    }
    say("NOT COMPARED: the BPF object builds, but the committed one was made by other compilers");
    say(&format!("committed:\n{committed_by}here:\n{made_by}"));
    Ok(())
}

/// The object without its DWARF; the kernel's type and line information (BTF) stays.
fn build(architecture: Architecture, folder: &Path, linker: &Path) -> Result<Vec<u8>, Failure> {
    let target = root().join("target/bpf");
    fs::create_dir_all(&target).doing(format_args!("make {}", target.display()))?;
    fetch(folder, &target)?;
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{}\"", architecture.name()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Atomic operations that give the old value; the kernel has them since 5.12.
        "-Ctarget-cpu=v3".to_owned(),
    ];
    flags.extend(renamed_paths(folder)?);
    let mut cargo = cargo(folder, &target);
    cargo.args(["build", "--release", "--locked", "--offline", "--target", TARGET]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker.join("bpf-linker"));
    command::quiet(&mut cargo, &target.join("build.log"), BUILD_LIMIT)?;

    let built = target.join(TARGET).join("release").join(BINARY);
    let stripped = target.join(format!("fhirward-{}.o", architecture.name()));
    let mut strip = Command::new(Path::new(LLVM).join("llvm-objcopy"));
    strip.arg("--strip-debug").arg(&built).arg(&stripped);
    command::quiet(&mut strip, &target.join("strip.log"), STRIP_LIMIT)?;
    fs::read(&stripped).doing(format_args!("read {}", stripped.display()))
}

/// Before the build, so that the registry's folders are known to it.
fn fetch(folder: &Path, target: &Path) -> Result<(), Failure> {
    let mut fetch = cargo(folder, target);
    fetch.args(["fetch", "--locked"]);
    command::quiet(&mut fetch, &target.join("fetch.log"), BUILD_LIMIT)
}

/// A cargo in the workspace of the programs, with nothing of the workspace that runs us.
fn cargo(folder: &Path, target: &Path) -> Command {
    let mut cargo = command::cargo();
    cargo.current_dir(folder.join("programs"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO_PROFILE_") || text.starts_with("CARGO_BUILD_");
        if ours || matches!(&*text, "RUSTFLAGS" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER") {
            cargo.env_remove(name);
        }
    }
    // The linker's interface and the kernel's atomics are unstable features of the compiler.
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", target);
    cargo
}

/// Line information names files; it must not name the folders of this machine.
fn renamed_paths(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut flags = vec![format!("--remap-path-prefix={}=ebpf-redirect", folder.display())];
    let sources = cargo_home()?.join("registry/src");
    for registry in fs::read_dir(&sources).doing(format_args!("read {}", sources.display()))?.flatten() {
        flags.push(format!("--remap-path-prefix={}=registry", registry.path().display()));
    }
    Ok(flags)
}

fn cargo_home() -> Result<PathBuf, Failure> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    set.or_else(usual).ok_or_else(|| Failure("neither CARGO_HOME nor HOME is set".to_owned()))
}

fn compilers_here(linker: &Path) -> Result<String, Failure> {
    let linker = linker.join("bpf-linker");
    let mut text = String::new();
    for (program, arguments) in [(Path::new(RUSTC), "-vV"), (linker.as_path(), "--version")] {
        let said = command::output(&program.to_string_lossy(), &[arguments])
            .ok_or_else(|| Failure(format!("{} cannot be run", program.display())))?;
        text.push_str(said.trim_end());
        text.push('\n');
    }
    Ok(text)
}
