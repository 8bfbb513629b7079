//! Writing PEM files so that a reader never sees half of one, and strangers never see a key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::authority::{Authority, Leaf};

/// Only the owner may read or write: private keys.
const PRIVATE: u32 = 0o600;
/// Anyone may read: certificates.
const PUBLIC: u32 = 0o644;

/// The files of one [`Leaf::write_to`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The root certificate: `ca.pem`.
    pub ca: PathBuf,
    /// The leaf with its chain: `tls.crt`.
    pub certificate: PathBuf,
    /// The leaf's key, mode 0600: `tls.key`.
    pub key: PathBuf,
}

impl Leaf {
    /// Writes `ca.pem`, `tls.crt` and `tls.key` (the names of a Kubernetes TLS secret) into
    /// `folder`, which is made when missing. Each file replaces its predecessor in one step; the
    /// key comes before the certificate, and a server that reloads on a change must expect to see
    /// the new key beside the old certificate for a moment.
    ///
    /// # Errors
    /// [`Error::Write`] naming the file.
    pub fn write_to(&self, folder: &Path, authority: &Authority) -> Result<Written, Error> {
        fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        let written = Written {
            ca: folder.join("ca.pem"),
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
        };
        write_public(&written.ca, &authority.certificate_pem())?;
        write_private(&written.key, self.key_pem())?;
        write_public(&written.certificate, self.chain_pem())?;
        Ok(written)
    }
}

/// Replaces `path` with `text`, readable by its owner alone (mode 0600 from the first byte on).
///
/// # Errors
/// [`Error::Write`] naming the file.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text, PRIVATE).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Replaces `path` with `text`, readable by all (mode 0644, less the process's umask).
///
/// # Errors
/// [`Error::Write`] naming the file.
pub fn write_public(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text, PUBLIC).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// Writes beside the target and renames: a crash leaves the old file, a reader sees one or the
/// other, and the mode of an older file is never inherited by a key.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(hidden);
    let done = create_exclusively(&beside, mode)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if done.is_err() {
        // The first error is the one to report; a leftover that cannot be removed changes nothing.
        let _ = fs::remove_file(&beside);
    }
    done
}

fn create_exclusively(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}
