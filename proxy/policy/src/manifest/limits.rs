//! What a manifest file may cost us at most.

/// Longest text of one file, bytes. The largest CRD bundles in the field have about 5 MiB.
pub const MAX_TEXT: usize = 32 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 128;
/// Most nodes of one document, aliases expanded.
pub const MAX_NODES: usize = 2_000_000;
/// Most nodes that the aliases and merge keys of one document may add.
pub const MAX_ALIAS_NODES: usize = 100_000;
/// Most opening brackets and braces that a document may have left open at any point of its text,
/// strings included. A cheap guard: the scanner looks ahead over all of them before it reports
/// the first, at a cost of their number squared.
pub const MAX_OPEN_BRACKETS: usize = 1_000;
