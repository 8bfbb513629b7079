//! Programs as Debian has them; installed where they are missing, for they need libraries beside them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use super::Workshop;
use crate::command::{self, Context, Failure};

const VERSION_LIMIT: Duration = Duration::from_secs(60);

/// Gives `bin/PROGRAM`, a link to the installed one, for each program with the word that asks for its
/// version.
pub(super) fn make(workshop: &Workshop, programs: &[(&str, &str)]) -> Result<(), Failure> {
    let bin = workshop.out.join("bin");
    fs::create_dir_all(&bin).doing(format_args!("make {}", bin.display()))?;
    for (program, version) in programs {
        let installed = command::find(program)
            .ok_or_else(|| Failure(format!("{program} is installed, and not on the PATH")))?;
        let link = bin.join(program);
        symlink(&installed, &link).doing(format_args!("link to the installed {program}"))?;
        command::quiet(Command::new(&link).arg(version), &workshop.log(program), VERSION_LIMIT)?;
    }
    Ok(())
}
