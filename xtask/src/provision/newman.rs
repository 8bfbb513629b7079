//! Newman and what it needs, exactly as the lock file says.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::{Part, Workshop, with_retries};
use crate::command::{self, Context, Failure};

const NPM_LIMIT: Duration = Duration::from_secs(600);

/// Gives `node_modules/newman/bin/newman.js`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    let source = Part::Newman.source();
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), workshop.out.join(file)).doing(format_args!("copy {file}"))?;
    }
    with_retries(|| {
        let mut npm = Command::new("npm");
        npm.current_dir(&workshop.out);
        // No package runs code of its own at installation.
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]);
        command::quiet(&mut npm, &workshop.log("npm"), NPM_LIMIT)
    })
}
