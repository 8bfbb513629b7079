//! The last good keys of each provider, on disk, so that a restart during a provider's outage
//! refuses no valid token.
//!
//! One file per source, public members only, written whole beside and renamed, for our user alone.
//! On reading everything is checked again as if it came from the network, and a file that others
//! could have written is not used.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys::KeySet;

/// Format of the file; others are not read.
const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    version: u32,
    issuer: String,
    keys_from: String,
    /// When the provider last confirmed the keys, Unix seconds.
    fetched_at: i64,
    jwks: Value,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no regular file, or others than our user may write it")]
    NotOurs,
    #[error("it is too large")]
    TooLarge,
    #[error("it is not what we write")]
    Format,
    #[error("it is about another issuer or address")]
    OtherSource,
    #[error("it is from the future")]
    Future,
    #[error("its keys are refused")]
    Keys,
}

/// The file of one source.
#[derive(Debug, Clone)]
pub(crate) struct DiskCache {
    file: PathBuf,
    issuer: String,
    keys_from: String,
    max_bytes: usize,
    max_keys: usize,
}

impl DiskCache {
    pub(crate) fn new(
        folder: &Path,
        issuer: &str,
        keys_from: &str,
        max_bytes: usize,
        max_keys: usize,
    ) -> Self {
        let named = format!("{issuer}\n{keys_from}");
        let hash = digest::digest(&digest::SHA256, named.as_bytes());
        let name: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self {
            file: folder.join(format!("{name}.json")),
            issuer: issuer.to_owned(),
            keys_from: keys_from.to_owned(),
            // Our form of a document is larger than the provider's by names and spaces alone.
            max_bytes: max_bytes * 2,
            max_keys,
        }
    }

    /// The keys and when they were last confirmed; `None` where there is no file. Blocks.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn read(&self, now: i64) -> Result<Option<(KeySet, i64)>, DiskError> {
        let found = match fs::symlink_metadata(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        if !found.is_file() || found.mode() & 0o022 != 0 {
            return Err(DiskError::NotOurs);
        }
        let mut text = Vec::new();
        let limit = u64::try_from(self.max_bytes).unwrap_or(u64::MAX);
        File::open(&self.file)?.take(limit + 1).read_to_end(&mut text)?;
        if text.len() > self.max_bytes {
            return Err(DiskError::TooLarge);
        }
        let stored: Stored = serde_json::from_slice(&text).map_err(|_| DiskError::Format)?;
        if stored.version != VERSION {
            return Err(DiskError::Format);
        }
        if stored.issuer != self.issuer || stored.keys_from != self.keys_from {
            return Err(DiskError::OtherSource);
        }
        // A minute for a clock that was set back.
        if stored.fetched_at > now.saturating_add(60) {
            return Err(DiskError::Future);
        }
        let keys = KeySet::parse(stored.jwks.to_string().as_bytes(), self.max_keys);
        Ok(Some((keys.map_err(|_| DiskError::Keys)?, stored.fetched_at)))
    }

    /// Removes the file: its keys must not come back. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the keys. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(&self, keys: &KeySet, fetched_at: i64) -> io::Result<()> {
        let stored = Stored {
            version: VERSION,
            issuer: self.issuer.clone(),
            keys_from: self.keys_from.clone(),
            fetched_at,
            jwks: keys.to_json(),
        };
        let text = serde_json::to_vec_pretty(&stored)?;
        if let Some(folder) = self.file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut random = [0_u8; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(io::Error::other)?;
        let beside = self.file.with_extension(format!("{:016x}.tmp", u64::from_ne_bytes(random)));
        let written = write_new(&beside, &text).and_then(|()| fs::rename(&beside, &self.file));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
