//! The proxy as users run it: the `fhirward` binary with a settings file, in a process of its own,
//! and what stands around it.

mod bytes;
pub mod datamesh;
mod hospital;
mod load;
mod mesh_load;
mod proxy;

use std::path::{Path, PathBuf};

pub use bytes::{ByteServer, Manner, receive, send};
pub use hospital::{Hospital, ISSUER_BASE};
pub use load::{Load, Outcome};
pub use mesh_load::{MeshClient, MeshLoad};
pub use proxy::{Proxy, ProxyError};

/// The folder of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary under test, built beside the tests.
///
/// # Errors
/// When it has not been built: never a skip.
pub fn binary() -> Result<PathBuf, ProxyError> {
    let own = std::env::current_exe()?;
    // target/<profile>/deps/<test> beside target/<profile>/fhirward
    let built = own.ancestors().nth(2).map(|folder| folder.join("fhirward"));
    built.filter(|file| file.is_file()).ok_or(ProxyError::NotBuilt)
}
