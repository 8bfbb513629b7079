//! Message length: exactly one way to read it.

use http::{HeaderMap, HeaderValue, Version, header};

use super::HeadError;

/// The declared length, if there is one. (RFC 9112 §6.3, RFC 9113 §8.1.1.)
///
/// # Errors
/// [`HeadError::ContentLength`], [`HeadError::LengthAndEncoding`], [`HeadError::TransferEncoding`],
/// [`HeadError::ConnectionSpecific`].
pub(super) fn check(headers: &HeaderMap, version: Version) -> Result<Option<u64>, HeadError> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version == Version::HTTP_2 {
            return Err(HeadError::ConnectionSpecific);
        }
        if length.is_some() {
            return Err(HeadError::LengthAndEncoding);
        }
        // A coding under `chunked` would be lost with the header, and the body would lie.
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::TransferEncoding);
        }
    }
    Ok(length)
}

/// Writes the length in its shortest form: `0010` is ten, and eight to who reads it as octal.
pub(super) fn plain(headers: &mut HeaderMap, length: Option<u64>) {
    let zeros = |value: &HeaderValue| value.len() > 1 && value.as_bytes().starts_with(b"0");
    if let Some(length) = length.filter(|_| headers.get(header::CONTENT_LENGTH).is_some_and(zeros)) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Several equal copies are refused too: they tell of a broken hop before us.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeadError::ContentLength);
    }
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(HeadError::ContentLength)
}
