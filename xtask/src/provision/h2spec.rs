//! h2spec, the HTTP/2 conformance tests of the summerwind project.

use super::golang::Build;
use super::{Part, Workshop, golang};
use crate::command::Failure;

const BUILD: Build = Build {
    part: Part::H2spec,
    programs: &["github.com/summerwind/h2spec/cmd/h2spec"],
    // Debian 12 has it.
    oldest_go: (1, 19),
    c: false,
    flags: &[],
};

/// Gives `bin/h2spec`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    golang::make(workshop, &BUILD)
}
