//! `fhirward node`

use std::process::ExitCode;

use super::run;

// Two groups of one name would be in one command: this one is not needed.
#[derive(clap::Args)]
#[group(skip)]
pub struct Arguments {
    #[command(flatten)]
    run: run::Arguments,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        self.run.start(|settings| match settings.capture {
            Some(_) => Ok(()),
            None => Err("`fhirward node` serves captured pods, and there is no `capture:` here; \
                         without it, start `fhirward run`"
                .to_owned()),
        })
    }
}
