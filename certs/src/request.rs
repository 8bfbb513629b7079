//! What a certificate is asked to say.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};

use crate::Error;

/// How far `notBefore` lies in the past by default, so that a peer whose clock is a little slow
/// still accepts a certificate minted this instant.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// The default life: long enough for a workshop, short enough to be thrown away.
const DEFAULT_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The longest DNS name (RFC 1035, 2.3.4), in text form without the final dot.
const MAX_DNS_NAME: usize = 253;
/// The longest label of a DNS name (RFC 1035, 2.3.4).
const MAX_DNS_LABEL: usize = 63;
/// The longest SPIFFE ID (SPIFFE-ID 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// The kind of private key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256: small and quick.
    #[default]
    EcdsaP256,
    /// RSA of 2048 bits with SHA-256, for peers that know nothing newer.
    Rsa2048,
}

/// What the peer may use the leaf for (extended key usage, RFC 5280 4.2.1.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// TLS server only.
    Server,
    /// TLS client only.
    Client,
    /// Both ends, as mesh workload certificates are.
    #[default]
    Both,
}

impl Purpose {
    pub(crate) fn usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Self::Both => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        }
    }
}

/// From when until when a certificate holds, in seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before: u64,
    not_after: u64,
}

impl Validity {
    /// The last second of year 9999, the latest that `notAfter` can state (RFC 5280, 4.1.2.5).
    const LATEST: u64 = 253_402_300_799;

    /// Both ends given, in seconds since 1970. A certificate that has already expired, or that
    /// is not valid yet, is made this way.
    ///
    /// # Errors
    /// [`Error::Validity`] when the end is not after the beginning or lies beyond year 9999.
    pub fn between(not_before: u64, not_after: u64) -> Result<Self, Error> {
        if not_before >= not_after || not_after > Self::LATEST {
            return Err(Error::Validity);
        }
        Ok(Self { not_before, not_after })
    }

    /// From five minutes before `now` until `life` after it; `now` in seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Validity`] as for [`Validity::between`].
    pub fn starting(now: u64, life: Duration) -> Result<Self, Error> {
        let begin = now.saturating_sub(CLOCK_SKEW.as_secs());
        let end = now.checked_add(life.as_secs()).ok_or(Error::Validity)?;
        Self::between(begin, end)
    }

    /// From five minutes ago by the system's clock, for 30 days.
    ///
    /// # Errors
    /// [`Error::Validity`] when the system's clock is before 1970 or after year 9999.
    pub fn from_now() -> Result<Self, Error> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_err(|_| Error::Validity)?;
        Self::starting(now.as_secs(), DEFAULT_LIFE)
    }

    pub(crate) fn apply(self, params: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.not_before);
        params.not_after = epoch + Duration::from_secs(self.not_after);
    }
}

/// One leaf certificate, described.
#[derive(Clone, Debug, Default)]
pub struct LeafRequest {
    /// Subject common name; when empty, the first name below is used.
    pub common_name: String,
    /// DNS subject alternative names; `*.` may lead.
    pub dns: Vec<String>,
    /// IP subject alternative names.
    pub ips: Vec<IpAddr>,
    /// SPIFFE ID as the URI subject alternative name, such as
    /// `spiffe://cluster.local/ns/datamesh/sa/fhir-server` (X509-SVID 2: exactly one URI).
    pub spiffe_id: Option<String>,
    /// When it holds; `None` is [`Validity::from_now`].
    pub validity: Option<Validity>,
    /// The kind of key.
    pub key: KeyKind,
    /// What it may be used for.
    pub purpose: Purpose,
}

impl LeafRequest {
    /// A certificate for these names, each taken as an IP address where it reads as one.
    pub fn for_names<I, S>(names: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut request = Self::default();
        for name in names {
            match name.as_ref().parse() {
                Ok(ip) => request.ips.push(ip),
                Err(_) => request.dns.push(name.as_ref().to_owned()),
            }
        }
        request
    }

    /// A workload's certificate: only a SPIFFE ID.
    pub fn for_workload(spiffe_id: impl Into<String>) -> Self {
        Self { spiffe_id: Some(spiffe_id.into()), ..Self::default() }
    }

    pub(crate) fn subject(&self) -> Result<String, Error> {
        if !self.common_name.is_empty() {
            return Ok(self.common_name.clone());
        }
        let first_ip = || self.ips.first().map(ToString::to_string);
        let name = self.dns.first().cloned().or_else(first_ip).or_else(|| self.spiffe_id.clone());
        name.ok_or(Error::NoName)
    }

    pub(crate) fn subject_alt_names(&self) -> Result<Vec<SanType>, Error> {
        let mut names = Vec::with_capacity(self.dns.len() + self.ips.len() + 1);
        for dns in &self.dns {
            check_dns(dns)?;
            names.push(SanType::DnsName(ia5("DNS name", dns)?));
        }
        names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        if let Some(id) = &self.spiffe_id {
            check_spiffe(id)?;
            names.push(SanType::URI(ia5("SPIFFE ID", id)?));
        }
        if names.is_empty() { Err(Error::NoName) } else { Ok(names) }
    }
}

fn ia5<T: TryFrom<String>>(kind: &'static str, value: &str) -> Result<T, Error> {
    T::try_from(value.to_owned()).map_err(|_| refused(kind, value, "it holds other than ASCII"))
}

fn refused(kind: &'static str, value: &str, reason: &'static str) -> Error {
    Error::Name { kind, value: value.to_owned(), reason }
}

fn check_dns(name: &str) -> Result<(), Error> {
    let no = |reason| Err(refused("DNS name", name, reason));
    if name.len() > MAX_DNS_NAME {
        return no("it is longer than 253 characters");
    }
    let labels = name.strip_prefix("*.").unwrap_or(name);
    for label in labels.split('.') {
        if label.is_empty() || label.len() > MAX_DNS_LABEL {
            return no("a label is empty or longer than 63 characters");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !label.bytes().all(plain) || label.starts_with('-') || label.ends_with('-') {
            return no("a label holds other than letters, digits and inner hyphens");
        }
    }
    Ok(())
}

/// The rules of SPIFFE-ID 2.1 and 2.2 that a certificate depends on.
fn check_spiffe(id: &str) -> Result<(), Error> {
    let no = |reason| Err(refused("SPIFFE ID", id, reason));
    let Some(rest) = id.strip_prefix("spiffe://") else {
        return no("it lacks spiffe://");
    };
    if id.len() > MAX_SPIFFE_ID {
        return no("it is longer than 2048 bytes");
    }
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(d, p)| (d, Some(p)));
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    if domain.is_empty() || !domain.bytes().all(in_domain) {
        return no("its trust domain is empty or holds other than a-z, 0-9, '-', '.', '_'");
    }
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(in_path);
    if path.is_some_and(|p| !p.split('/').all(segment)) {
        return no("a path segment is empty, dots only, or holds a character outside of a-zA-Z0-9-._");
    }
    Ok(())
}
