//! bpf-linker, built against Debian's LLVM, which is the one that Debian's compiler brings too.

use std::path::Path;
use std::time::Duration;

use super::parts::BPF_LINKER;
use super::{Workshop, with_retries};
use crate::command::{self, Failure};

/// Where Debian keeps the LLVM that rustc-web is built with.
pub(super) const LLVM: &str = "/usr/lib/llvm-22";
/// Its dependencies are few; a slow machine needs some minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// Gives `bin/bpf-linker`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    with_retries(|| {
        let mut cargo = command::cargo();
        cargo.args(["install", "bpf-linker", "--locked", "--no-default-features", "--features", "llvm-22"]);
        cargo.args(["--version", BPF_LINKER, "--root"]).arg(&workshop.out);
        cargo.arg("--target-dir").arg(workshop.scratch.join("target"));
        cargo.env("LLVM_PREFIX", LLVM).env("LLVM_SYS_221_PREFIX", LLVM);
        cargo.env("PATH", command::path_with(&Path::new(LLVM).join("bin")));
        command::quiet(&mut cargo, &workshop.log("install"), BUILD_LIMIT)
    })
}
