//! A workload's certificate that was found good, with its key.

use std::{sync::Arc, time::Duration};

use policy::SpiffeId;
use rustls::{crypto::aws_lc_rs::sign::any_supported_type, sign::CertifiedKey};
use rustls_pki_types::UnixTime;

use super::{Material, SupplyError};
use crate::spiffe::{Role, TrustBundles, shape};

/// A clock that is set back by less, in seconds, changes nothing: certificates begin a little in the past.
const CLOCK_STEP: i64 = 5;

/// A workload's certificate and key. The key can sign; it cannot be taken out.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    issued_at: i64,
    not_after: i64,
}

impl Svid {
    /// Takes a certificate into service that every peer would take, and no other.
    pub(super) fn new(
        id: &SpiffeId,
        material: Material,
        trust: &TrustBundles,
        now: i64,
    ) -> Result<Self, SupplyError> {
        let refused = |error| SupplyError::Refused(id.to_string(), error);
        let Some((leaf, issuers)) = material.chain.split_first() else {
            return Err(SupplyError::Unknown(id.to_string()));
        };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        let mut not_after = i64::MAX;
        for role in [Role::Server, Role::Client] {
            let peer = trust.verify(leaf, issuers, role, time).map_err(refused)?;
            if peer.id != *id {
                return Err(SupplyError::Foreign(id.to_string(), peer.id.to_string()));
            }
            not_after = peer.not_after;
        }
        // The chain ends when the first of its certificates does.
        for issuer in issuers {
            not_after = not_after.min(shape::read(issuer).map_err(refused)?.validity().not_after.timestamp());
        }
        let wrong = |error: rustls::Error| SupplyError::Key(id.to_string(), error.to_string());
        // By reference: the bytes are wiped with the material.
        let key = any_supported_type(&material.key).map_err(wrong)?;
        let key = CertifiedKey::new(material.chain.clone(), key);
        key.keys_match().map_err(wrong)?;
        Ok(Self { id: id.clone(), key: Arc::new(key), issued_at: now, not_after })
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Chain and signing key, as rustls takes them.
    #[must_use]
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Its end, in Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// A moment between a half and two thirds of the life that was left when it came, in Unix seconds.
    pub(super) fn renew_at(&self, dice: f64) -> i64 {
        let life = self.not_after.saturating_sub(self.issued_at).max(0);
        // A half and up to 16 hundredths more; whole seconds are enough.
        let hundredths = 50 + (16.0 * dice.clamp(0.0, 1.0)) as i64;
        self.issued_at + life.saturating_mul(hundredths) / 100
    }

    /// Whether the clock was set back behind the moment when it came: then it may not hold yet, and what was
    /// reckoned from that moment is wrong.
    pub(super) fn is_ahead(&self, now: i64) -> bool {
        now < self.issued_at - CLOCK_STEP
    }

    /// When it should have been renewed, in Unix seconds: five sixths of its life are over then.
    pub(super) fn late_at(&self) -> i64 {
        self.not_after - self.not_after.saturating_sub(self.issued_at) / 6
    }

    /// Whether it should have been renewed by now.
    pub(super) fn is_late(&self, now: i64) -> bool {
        now > self.late_at()
    }
}
