//! The folder of the embedded authority: `root-<created>.crt` and `.key` (0600), `bundle.pem` for peers.
//!
//! Several proxies may share it: each reads what the others made and trusts it. Whoever makes a root
//! holds `.lock` (flock) meanwhile, so that they make one, and not one each under the same name.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::super::{SupplyError, trust::read};
use crate::spiffe::shape;

/// The largest certificate or key in the folder.
const FILE_BYTES: u64 = 64 * 1024;
/// Most roots in the folder; more are a mistake.
const MOST: usize = 32;

/// The roots in the folder, oldest first.
pub(super) struct Roots {
    folder: PathBuf,
    roots: Vec<Root>,
}

/// One root.
pub(super) struct Root {
    pub(super) certificate: CertificateDer<'static>,
    not_before: i64,
    pub(super) not_after: i64,
    /// When it was made, in Unix seconds.
    created: i64,
    file: PathBuf,
}

impl Root {
    /// Whether it holds now: not the one of a proxy whose clock was ahead.
    fn holds(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it has been over for as long as it lasted: a clock that is ahead for a moment ends nothing.
    fn is_long_over(&self, now: i64) -> bool {
        self.not_after.saturating_add(self.not_after.saturating_sub(self.not_before)) < now
    }

    /// Reads its key, for as long as it takes to sign an intermediate.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, SupplyError> {
        let path = self.file.with_extension("key");
        let failed = |reason: String| SupplyError::File { path: path.clone(), reason };
        let mode = fs::metadata(&path).map_err(|error| failed(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed(format!("others may read it (mode {:o}); only 0600 is taken", mode & 0o777)));
        }
        let pem = Zeroizing::new(read(&path, FILE_BYTES)?);
        let pem = std::str::from_utf8(&pem).map_err(|error| failed(error.to_string()))?;
        let key = KeyPair::from_pem(pem).map_err(|error| failed(error.to_string()))?;
        Issuer::from_ca_cert_der(&self.certificate, key).map_err(|error| failed(error.to_string()))
    }
}

impl Roots {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, roots: Vec::new() }
    }

    /// Takes the folder as it is; certificates that expired long ago are removed, with their keys.
    pub(super) fn read(&mut self, now: i64) -> Result<(), SupplyError> {
        self.make_folder()?;
        let listed = fs::read_dir(&self.folder).map_err(|error| file_error(&self.folder, &error))?;
        let mut found = Vec::new();
        for entry in listed {
            let path = entry.map_err(|error| file_error(&self.folder, &error))?.path();
            let Some(created) = created(&path) else { continue };
            if found.len() == MOST {
                let reason = format!("more than {MOST} roots");
                return Err(SupplyError::File { path: self.folder.clone(), reason });
            }
            found.push(root(path, created)?);
        }
        found.sort_by_key(|root| root.created);
        for root in found.extract_if(.., |root| root.is_long_over(now)) {
            // It vouches for nothing any more: a leftover does no harm.
            let _ = fs::remove_file(root.file.with_extension("key"));
            let _ = fs::remove_file(&root.file);
        }
        self.roots = found;
        Ok(())
    }

    /// The newest root that every peer has had time to learn of; the oldest where none is that old.
    pub(super) fn signing(&self, now: i64, overlap: i64) -> Option<&Root> {
        let known = |root: &&Root| root.created.saturating_add(overlap) <= now;
        self.holding(now).rev().find(known).or_else(|| self.holding(now).next())
    }

    /// The end of the newest root that holds now.
    pub(super) fn newest_end(&self, now: i64) -> Option<i64> {
        self.holding(now).next_back().map(|root| root.not_after)
    }

    fn holding(&self, now: i64) -> impl DoubleEndedIterator<Item = &Root> {
        self.roots.iter().filter(move |root| root.holds(now))
    }

    /// The right to make a root, until it is dropped; `None` while another has it.
    pub(super) fn lock(&self) -> Result<Option<File>, SupplyError> {
        let path = self.folder.join(".lock");
        let failed = |error: io::Error| file_error(&path, &error);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Keeps a new root, under the lock. Its key first: a certificate without one could never sign.
    pub(super) fn add(
        &mut self,
        certificate: &CertificateDer<'static>,
        key: &KeyPair,
        now: i64,
    ) -> Result<(), SupplyError> {
        let newest = self.holding(now).next_back().map_or(now, |root| root.created.saturating_add(1));
        let mut created = now.max(newest);
        while self.roots.iter().any(|root| root.created == created) {
            created = created.saturating_add(1);
        }
        self.remove_leftovers();
        let file = self.folder.join(format!("root-{created}.crt"));
        replace(&file.with_extension("key"), Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
        replace(&file, pem(certificate).as_bytes(), 0o644)?;
        self.read(now)
    }

    /// What a proxy left that was ended while it made a root: under the lock nobody is at it.
    fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("root-") && name.ends_with(".new")) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// All roots, and `bundle.pem` brought up to date.
    pub(super) fn publish(&self, now: i64) -> Result<Vec<CertificateDer<'static>>, SupplyError> {
        let roots: Vec<_> = self.roots.iter().filter(|root| root.not_after >= now).collect();
        let text: String = roots.iter().map(|root| pem(&root.certificate)).collect();
        let bundle = self.folder.join("bundle.pem");
        if fs::read(&bundle).ok().as_deref() != Some(text.as_bytes()) {
            replace(&bundle, text.as_bytes(), 0o644)?;
        }
        Ok(roots.into_iter().map(|root| root.certificate.clone()).collect())
    }

    fn make_folder(&self) -> Result<(), SupplyError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(|error| file_error(&self.folder, &error))
    }
}

/// Reads a root. Whoever may change its certificate could be anybody of the mesh, so that is us or the
/// machine's root alone: the folder may be one that others may write to.
fn root(file: PathBuf, created: i64) -> Result<Root, SupplyError> {
    let failed = |reason: String| SupplyError::File { path: file.clone(), reason };
    let told = fs::metadata(&file).map_err(|error| failed(error.to_string()))?;
    if told.uid() != 0 && told.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed(format!("it is another user's ({})", told.uid())));
    }
    if told.mode() & 0o022 != 0 {
        return Err(failed(format!("others may change it (mode {:o})", told.mode() & 0o777)));
    }
    let certificate = CertificateDer::from_pem_slice(&read(&file, FILE_BYTES)?);
    let certificate = certificate.map_err(|error| failed(error.to_string()))?;
    let (not_before, not_after) = {
        let shape = shape::read(&certificate).map_err(|error| failed(error.to_string()))?;
        (shape.validity().not_before.timestamp(), shape.validity().not_after.timestamp())
    };
    Ok(Root { certificate, not_before, not_after, created, file })
}

/// `root-<created>.crt`
fn created(path: &Path) -> Option<i64> {
    path.file_name()?.to_str()?.strip_prefix("root-")?.strip_suffix(".crt")?.parse().ok()
}

/// Base64 in lines of 64, as RFC 7468 has it.
fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate.as_ref());
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// Writes beside and renames: a reader sees the old file or the new, and the mode holds from the first byte.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SupplyError> {
    // Nobody else's: process ids are not enough where containers share the folder.
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| SupplyError::Sign("the system gives no random bytes".to_owned()))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{:016x}.new", u64::from_ne_bytes(random)));
    let beside = PathBuf::from(beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(|error| file_error(path, &error))
}

fn file_error(path: &Path, error: &io::Error) -> SupplyError {
    SupplyError::File { path: path.to_owned(), reason: error.to_string() }
}
