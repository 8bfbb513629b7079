//! How gRPC clients are told.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

/// Whether a client speaks gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grpc {
    /// No; grpc-web clients are answered as others are.
    #[default]
    No,
    /// `application/grpc`, `application/grpc+…`
    Yes,
}

impl Grpc {
    /// By the request's `content-type` (Envoy's `isGrpcRequestHeaders`).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        // Several are one joined value, which is no gRPC's.
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let grpc = types.next().filter(|_| types.next().is_none()).is_some_and(|value| {
            let rest = value.as_bytes().strip_prefix(b"application/grpc");
            matches!(rest, Some([] | [b'+', ..]))
        });
        if grpc { Self::Yes } else { Self::No }
    }
}

/// The gRPC status of an HTTP status (grpc/doc/http-grpc-status-mapping.md).
#[must_use]
pub(crate) fn status_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// HTTP 200 with the status in the head: a trailers-only response.
pub(super) fn trailers_only(status: StatusCode, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), status_of(status).into());
    if let Some(value) = encode(message) {
        headers.insert(HeaderName::from_static("grpc-message"), value);
    }
    response
}

/// Percent-encoding of `grpc-message` (gRPC over HTTP/2, "Percent-Encoded").
fn encode(message: &str) -> Option<HeaderValue> {
    if message.is_empty() {
        return None;
    }
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    HeaderValue::from_str(&encoded).ok()
}
