//! `fhirward agent`: the privileged process.

pub mod protocol;
