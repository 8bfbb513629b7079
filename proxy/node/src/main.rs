//! The `fhirward` command.
fn main() {}
