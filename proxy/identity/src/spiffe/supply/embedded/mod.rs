//! An authority of our own: a root on disk, an intermediate and the workloads' keys in memory.
//!
//! Root (kept in a folder, mode 0600) -> intermediate (made at start, and before it gets too old to
//! sign a leaf of full life) -> leaf. A new root is made while the old one still has an
//! intermediate's life and the overlap before it, is trusted at once, and signs only after the
//! overlap, so that every peer has had time to learn of it.

mod mint;
mod roots;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use policy::SpiffeId;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

use super::{Ask, Known, Material, Next, Supplier, SupplyError, Svid};
use crate::{Clock, spiffe::EmbeddedCaSettings};

use roots::{Root, Roots};

/// How long the first root of a shared folder is waited for, while another makes it.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_EVERY: Duration = Duration::from_millis(20);

/// The authority, as others ask it: it reads and writes files, and does so where waiting holds up nobody.
pub(super) struct EmbeddedCa(Arc<Authority>);

struct Authority {
    settings: EmbeddedCaSettings,
    trust_domain: String,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    roots: Roots,
    intermediate: Option<Intermediate>,
}

struct Intermediate {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// The root that signed it.
    root: CertificateDer<'static>,
    since: i64,
    not_after: i64,
}

impl EmbeddedCa {
    pub(super) fn new(settings: EmbeddedCaSettings, trust_domain: &str, clock: Clock) -> Self {
        Self(Arc::new(Authority::new(settings, trust_domain, clock)))
    }
}

impl Authority {
    fn new(settings: EmbeddedCaSettings, trust_domain: &str, clock: Clock) -> Self {
        let roots = Roots::new(settings.folder.clone());
        let state = Mutex::new(State { roots, intermediate: None });
        Self { settings, trust_domain: trust_domain.to_owned(), clock, state }
    }

    fn issue(&self, id: &SpiffeId) -> Result<Material, SupplyError> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let intermediate = self.intermediate(&mut state, now)?;
        let not_after = intermediate.not_after.min(now.saturating_add(seconds(self.settings.leaf_seconds)));
        let (leaf, key) = mint::leaf(id, (now, not_after), &intermediate.issuer)?;
        Ok(Material { chain: vec![leaf, intermediate.certificate.clone()], key })
    }

    /// The intermediate in service, or a new one where that is too old or of another root.
    fn intermediate<'a>(&self, state: &'a mut State, now: i64) -> Result<&'a Intermediate, SupplyError> {
        let overlap = seconds(self.settings.overlap_seconds);
        let root =
            state.roots.signing(now, overlap).ok_or_else(|| SupplyError::Sign("no root".to_owned()))?;
        let least = seconds(self.settings.leaf_seconds).max(seconds(self.settings.intermediate_seconds) / 3);
        // The clock may have been set back.
        let lasts = |one: &Intermediate| one.since <= now && one.not_after - now >= least;
        let usable = |one: &Intermediate| one.root == root.certificate && lasts(one);
        let made = match state.intermediate.take().filter(usable) {
            Some(held) => held,
            None => self.make_intermediate(root, now)?,
        };
        Ok(state.intermediate.insert(made))
    }

    fn make_intermediate(&self, root: &Root, now: i64) -> Result<Intermediate, SupplyError> {
        let end = now.saturating_add(seconds(self.settings.intermediate_seconds)).min(root.not_after);
        let signer = root.issuer()?;
        let (certificate, issuer) = mint::intermediate(&self.trust_domain, (now, end), &signer)?;
        tracing::info!(expires_in_seconds = end - now, "new intermediate of the embedded authority");
        Ok(Intermediate { issuer, certificate, root: root.certificate.clone(), since: now, not_after: end })
    }

    /// Whether the newest root lasts until a next one may sign.
    fn lasts(&self, roots: &Roots, now: i64) -> bool {
        let settings = &self.settings;
        let needed = settings.intermediate_seconds.saturating_add(settings.overlap_seconds);
        let least = seconds(needed.max(settings.root_seconds / 3));
        roots.newest_end(now).is_some_and(|end| end - now >= least)
    }

    /// Makes a root where there is none, or where the newest will be too old before a next one may sign.
    fn ensure_root(&self, state: &mut State, now: i64) -> Result<(), SupplyError> {
        let began = Instant::now();
        let lock = loop {
            state.roots.read(now)?;
            if self.lasts(&state.roots, now) {
                return Ok(());
            }
            match state.roots.lock()? {
                Some(lock) => break lock,
                // Another is at it, and there is one to go on with: the next look finds what it made.
                None if state.roots.newest_end(now).is_some() => return Ok(()),
                None if began.elapsed() < LOCK_LIMIT => thread::sleep(LOCK_EVERY),
                None => {
                    let reason = format!("another has been making the first root for {LOCK_LIMIT:?}");
                    return Err(SupplyError::File { path: self.settings.folder.clone(), reason });
                }
            }
        };
        // It may have been made since it was looked for.
        state.roots.read(now)?;
        if !self.lasts(&state.roots, now) {
            self.make_root(state, now)?;
        }
        drop(lock);
        Ok(())
    }

    fn make_root(&self, state: &mut State, now: i64) -> Result<(), SupplyError> {
        let end = now.saturating_add(seconds(self.settings.root_seconds));
        let (certificate, key) = mint::root(&self.trust_domain, (now, end))?;
        state.roots.add(&certificate, &key, now)?;
        tracing::info!(expires_in_seconds = end - now, "new root of the embedded authority");
        Ok(())
    }

    fn known(&self) -> Result<Known, SupplyError> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.ensure_root(&mut state, now)?;
        Known::own(&self.trust_domain, state.roots.publish(now)?)
    }
}

impl Supplier for EmbeddedCa {
    fn supply<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, Result<Option<Material>, SupplyError>> {
        let (authority, id) = (Arc::clone(&self.0), ask.id.clone());
        Box::pin(async move {
            let issued = tokio::task::spawn_blocking(move || authority.issue(&id)).await;
            issued.unwrap_or_else(|error| Err(SupplyError::Sign(error.to_string()))).map(Some)
        })
    }

    fn known(&self) -> Result<Known, SupplyError> {
        self.0.known()
    }

    fn next(&self, _: &Svid) -> Next {
        Next::Renew
    }
}

fn seconds(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
