//! SPIRE, the SPIFFE project's own server and agent: both from one build, as they share most packages.

use super::golang::Build;
use super::{Part, Workshop, golang};
use crate::command::Failure;

const BUILD: Build = Build {
    part: Part::Spire,
    programs: &["github.com/spiffe/spire/cmd/spire-server", "github.com/spiffe/spire/cmd/spire-agent"],
    oldest_go: (1, 24),
    // The server keeps its entries in SQLite.
    c: true,
    // It serves a handful of tests: half of the compiler's time would go into optimising.
    flags: &["-gcflags=all=-N -l"],
};

/// Gives `bin/spire-server` and `bin/spire-agent`.
pub(super) fn make(workshop: &Workshop) -> Result<(), Failure> {
    golang::make(workshop, &BUILD)
}
