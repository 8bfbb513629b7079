//! SPIFFE ids, strictly: what is not one to the letter reaches no policy, log or header.

use policy::SpiffeId;

/// Longest SPIFFE id, in bytes (SPIFFE-ID §2.3).
const ID_BYTES: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID §2.1).
const TRUST_DOMAIN_BYTES: usize = 255;

/// Why text is no workload's SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// SPIFFE-ID §2 forbids it.
    #[error("{0}")]
    Invalid(&'static str),
    /// A SPIFFE id, but not of the shape `/ns/<namespace>/sa/<service account>`.
    #[error("the path is not /ns/<namespace>/sa/<service account>")]
    NotAWorkload,
}

/// Parses `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
///
/// Nothing is decoded, folded or trimmed: letters of the trust domain are lower case, a segment
/// holds letters, digits, `.`, `-` and `_`, and is neither empty nor `.` nor `..` (SPIFFE-ID §2).
///
/// # Errors
/// [`IdError`]
pub fn parse_id(text: &str) -> Result<SpiffeId, IdError> {
    if text.len() > ID_BYTES {
        return Err(IdError::Invalid("it is longer than 2048 bytes"));
    }
    let rest = text.strip_prefix("spiffe://").ok_or(IdError::Invalid("the scheme is not spiffe"))?;
    let (trust_domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_trust_domain(trust_domain)?;
    // Without a path it is a trust domain's own id: no workload's.
    if !rest.contains('/') {
        return Err(IdError::NotAWorkload);
    }
    for segment in path.split('/') {
        check_segment(segment)?;
    }
    let mut segments = path.split('/');
    match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => Ok(SpiffeId {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        }),
        _ => Err(IdError::NotAWorkload),
    }
}

/// Whether text can be a trust domain's name (SPIFFE-ID §2.1).
pub(super) fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::Invalid("there is no trust domain"));
    }
    if name.len() > TRUST_DOMAIN_BYTES {
        return Err(IdError::Invalid("the trust domain is longer than 255 bytes"));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if !name.bytes().all(fits) {
        return Err(IdError::Invalid("the trust domain holds a character that it may not"));
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), IdError> {
    match segment {
        "" => return Err(IdError::Invalid("a segment of the path is empty")),
        "." | ".." => return Err(IdError::Invalid("the path holds dot segments")),
        _ => {}
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !segment.bytes().all(fits) {
        return Err(IdError::Invalid("the path holds a character that it may not"));
    }
    Ok(())
}
