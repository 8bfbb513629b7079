//! Certificates that break a rule and are signed all the same, and revocation lists: for the tests of
//! whoever must refuse them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

use crate::authority::{authority_params, generate, mint_error, named_params};
use crate::{Authority, Error, Intermediate, KeyKind, Leaf, Purpose, Validity};

/// What a key may be used for (RFC 5280, 4.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// digitalSignature
    DigitalSignature,
    /// keyEncipherment
    KeyEncipherment,
    /// keyCertSign
    KeyCertSign,
    /// cRLSign
    CrlSign,
}

/// A leaf, good or not.
#[derive(Clone, Debug)]
pub struct OddRequest {
    /// URI subject alternative names, as they are: unchecked, though ASCII.
    pub uris: Vec<String>,
    /// DNS subject alternative names, unchecked.
    pub dns: Vec<String>,
    /// When it holds; `None` is [`Validity::from_now`].
    pub validity: Option<Validity>,
    /// The CA flag.
    pub ca: bool,
    /// Key usage; empty: no such extension.
    pub uses: Vec<KeyUse>,
    /// Extended key usage; none: no such extension.
    pub purpose: Option<Purpose>,
    /// The kind of key.
    pub key: KeyKind,
}

/// An intermediate, good or not.
#[derive(Clone, Debug)]
pub struct OddIssuer {
    /// The CA flag.
    pub ca: bool,
    /// Key usage; empty: no such extension.
    pub uses: Vec<KeyUse>,
    /// When it holds; `None` is [`Validity::from_now`].
    pub validity: Option<Validity>,
    /// Longest path of further intermediates.
    pub path_length: Option<u8>,
}

impl Default for OddIssuer {
    fn default() -> Self {
        Self { ca: true, uses: vec![KeyUse::KeyCertSign, KeyUse::CrlSign], validity: None, path_length: None }
    }
}

impl OddRequest {
    /// What a workload's good certificate says, to be spoilt.
    pub fn workload(spiffe_id: impl Into<String>) -> Self {
        Self {
            uris: vec![spiffe_id.into()],
            dns: Vec::new(),
            validity: None,
            ca: false,
            uses: vec![KeyUse::DigitalSignature],
            purpose: Some(Purpose::Both),
            key: KeyKind::default(),
        }
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        let validity = self.validity.map_or_else(Validity::from_now, Ok)?;
        let mut params = named_params("odd", validity);
        for uri in &self.uris {
            let uri = uri.as_str().try_into().map_err(|source| mint_error(uri, source))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        for name in &self.dns {
            let name = name.as_str().try_into().map_err(|source| mint_error(name, source))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = uses(&self.uses);
        params.extended_key_usages =
            self.purpose.map_or_else(Vec::<ExtendedKeyUsagePurpose>::new, Purpose::usages);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        Ok(params)
    }
}

/// A leaf signed by its own key.
///
/// # Errors
/// [`Error::Mint`] when the key or certificate cannot be made.
pub fn odd_self_signed(request: &OddRequest) -> Result<Leaf, Error> {
    let mut params = request.params()?;
    params.use_authority_key_identifier_extension = false;
    let minted = generate(request.key).and_then(|key| {
        let certificate = params.self_signed(&key)?;
        Ok(Leaf::of(&certificate, &key, &params))
    });
    minted.map_err(|source| mint_error("odd", source))
}

impl Authority {
    /// Signs whatever is asked for.
    ///
    /// # Errors
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn issue_odd(&self, request: &OddRequest) -> Result<Leaf, Error> {
        let params = request.params()?;
        let minted = generate(request.key).and_then(|key| {
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(Leaf::of(&certificate, &key, &params))
        });
        minted.map_err(|source| mint_error("odd", source))
    }

    /// An authority below this one that may not be one.
    ///
    /// # Errors
    /// [`Error::Mint`] when the key or certificate cannot be made.
    pub fn odd_intermediate(
        &self,
        common_name: &str,
        request: &OddIssuer,
    ) -> Result<Intermediate<'_>, Error> {
        let validity = request.validity.map_or_else(Validity::from_now, Ok)?;
        let mut params = authority_params(common_name, validity);
        params.is_ca = match (request.ca, request.path_length) {
            (false, _) => IsCa::ExplicitNoCa,
            (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
            (true, Some(most)) => IsCa::Ca(BasicConstraints::Constrained(most)),
        };
        params.key_usages = uses(&request.uses);
        params.serial_number = Some(serial());
        let signed = generate(KeyKind::default()).and_then(|key| {
            let certificate = params.signed_by(&key, &self.issuer)?;
            // What the issuer itself may do is left out: it is to sign whatever it is asked to.
            params.key_usages.clear();
            Ok(Self::of(&certificate, Issuer::new(params, key)))
        });
        Ok(Intermediate { root: self, below: signed.map_err(|source| mint_error(common_name, source))? })
    }

    /// A revocation list (PEM) of these leaves, which this authority must have issued by
    /// [`Authority::issue_odd`]; `validity` is from thisUpdate to nextUpdate.
    ///
    /// # Errors
    /// [`Error::Mint`] when it cannot be made.
    pub fn revocation_list(&self, revoked: &[&Leaf], validity: Validity) -> Result<String, Error> {
        let mut times = CertificateParams::default();
        validity.apply(&mut times);
        let entry = |leaf: &&Leaf| {
            Some(RevokedCertParams {
                serial_number: leaf.serial.clone()?,
                revocation_time: times.not_before,
                reason_code: None,
                invalidity_date: None,
            })
        };
        let list = CertificateRevocationListParams {
            this_update: times.not_before,
            next_update: times.not_after,
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().filter_map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).and_then(|list| list.pem());
        signed.map_err(|source| mint_error("revocation list", source))
    }
}

impl Intermediate<'_> {
    /// As [`Authority::issue_odd`]; its chain holds this intermediate after the leaf.
    ///
    /// # Errors
    /// As [`Authority::issue_odd`].
    pub fn issue_odd(&self, request: &OddRequest) -> Result<Leaf, Error> {
        Ok(self.issue_alone(request)?.under(&self.below))
    }

    /// The same, without this intermediate in its chain.
    ///
    /// # Errors
    /// As [`Authority::issue_odd`].
    pub fn issue_alone(&self, request: &OddRequest) -> Result<Leaf, Error> {
        self.below.issue_odd(request)
    }

    /// One more authority below this one, signed though the path may be too long; `leaf` below it.
    ///
    /// # Errors
    /// As [`Authority::issue_odd`].
    pub fn issue_below(&self, common_name: &str, request: &OddRequest) -> Result<Leaf, Error> {
        let further = self.below.odd_intermediate(common_name, &OddIssuer::default())?;
        Ok(further.issue_odd(request)?.under(&self.below))
    }

    /// As [`Authority::revocation_list`].
    ///
    /// # Errors
    /// As [`Authority::revocation_list`].
    pub fn revocation_list(&self, revoked: &[&Leaf], validity: Validity) -> Result<String, Error> {
        self.below.revocation_list(revoked, validity)
    }
}

fn uses(asked: &[KeyUse]) -> Vec<KeyUsagePurpose> {
    let one = |asked: &KeyUse| match asked {
        KeyUse::DigitalSignature => KeyUsagePurpose::DigitalSignature,
        KeyUse::KeyEncipherment => KeyUsagePurpose::KeyEncipherment,
        KeyUse::KeyCertSign => KeyUsagePurpose::KeyCertSign,
        KeyUse::CrlSign => KeyUsagePurpose::CrlSign,
    };
    asked.iter().map(one).collect()
}

/// Another one each time, so that a revocation list means this certificate alone.
fn serial() -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut bytes = [0_u8; 16];
    let (time, number) = bytes.split_at_mut(8);
    // Nanoseconds since 1970 leave the first bit free until 2262: the number stays positive.
    time.copy_from_slice(&u64::try_from(since.as_nanos()).unwrap_or(1).to_be_bytes());
    number.copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    SerialNumber::from_slice(&bytes)
}
