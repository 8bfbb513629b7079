//! HAProxy as Debian has it; installed where it is missing, for it needs libraries beside it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use super::Workshop;
use crate::command::{self, Context, Failure};

const VERSION_LIMIT: Duration = Duration::from_secs(60);

/// Gives `bin/haproxy`, a link to the installed one.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    let installed = command::find("haproxy")
        .ok_or_else(|| Failure("haproxy is installed, and not on the PATH".to_owned()))?;
    let bin = workshop.out.join("bin");
    fs::create_dir_all(&bin).doing(format_args!("make {}", bin.display()))?;
    let program = bin.join("haproxy");
    symlink(&installed, &program).doing("link to the installed haproxy")?;
    command::quiet(Command::new(&program).arg("-v"), &workshop.log("version"), VERSION_LIMIT)
}
