//! Any outcome to an answer: the only room that knows statuses and words (invariant 2).
//!
//! Bodies are Envoy's and Istio's to the byte, unless the workload serves FHIR
//! and the client asks for FHIR: then an OperationOutcome with the same status. A gRPC client gets
//! HTTP 200 with `grpc-status`; grpc-web gets the plain answer.

mod grpc;
mod status;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use fhir::{Format, Issue, outcome};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::{Refusal, refusal::RouteAnswer};

pub use grpc::Grpc;
pub(crate) use status::{details, flags, refused};

/// What an answer's words depend on beside the refusal: learned as the request goes its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyContext {
    /// Whether the client speaks gRPC.
    pub grpc: Grpc,
    /// The FHIR format the client accepts, where the workload serves FHIR.
    pub fhir: Option<Format>,
    /// `realm` of a token refusal: the original URL. Made only when it is needed.
    pub realm: Option<Box<str>>,
}

impl ReplyContext {
    /// Reads what a client speaks from its head.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self { grpc: Grpc::of(headers), fhir: None, realm: None }
    }
}

/// The answer to a refusal. HEAD is for the server side: it sends the head alone.
///
/// A refusal that drops the connection ([`Refusal::drops_connection`]) is not to be rendered; where
/// it is all the same, the answer is a bare 403.
#[must_use]
pub fn render(refusal: &Refusal, context: &ReplyContext) -> Response<Bytes> {
    if let Refusal::Answered(answer) = refusal {
        return from_route(answer);
    }
    let status = status::of(refusal);
    let text = status::body(refusal);
    let mut response = match (context.grpc, context.fhir) {
        (Grpc::Yes, _) => grpc::trailers_only(status, &text),
        (_, Some(format)) => operation_outcome(refusal, status, &text, format),
        (_, None) => plain(status, &text),
    };
    if let Refusal::Credentials(rejection) = refusal {
        let challenge = challenge(context.realm.as_deref(), status::is_missing(rejection));
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn answer(status: StatusCode, media_type: Option<&'static str>, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(media_type) = media_type {
        let value = HeaderValue::from_static(media_type);
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn plain(status: StatusCode, text: &str) -> Response<Bytes> {
    let media_type = (!text.is_empty()).then_some("text/plain");
    answer(status, media_type, Bytes::copy_from_slice(text.as_bytes()))
}

fn operation_outcome(refusal: &Refusal, status: StatusCode, text: &str, format: Format) -> Response<Bytes> {
    let diagnostics = if text.is_empty() { status.canonical_reason().unwrap_or("refused") } else { text };
    let body = outcome::render(&Issue { code: status::issue_code(refusal), diagnostics }, format);
    answer(status, Some(format.media_type()), Bytes::from(body))
}

fn from_route(route: &RouteAnswer) -> Response<Bytes> {
    let mut response = plain(route.status, &route.body);
    for (name, value) in &route.headers {
        if name == header::CONTENT_TYPE {
            response.headers_mut().remove(name);
        }
        response.headers_mut().append(name, value.clone());
    }
    response
}

/// `Bearer realm="<original url>"[, error="invalid_token"]` (RFC 6750 §3, Envoy's jwt_authn).
fn challenge(realm: Option<&str>, missing: bool) -> HeaderValue {
    let error = if missing { "" } else { ", error=\"invalid_token\"" };
    let realm = realm.unwrap_or_default();
    HeaderValue::from_str(&format!("Bearer realm=\"{realm}\"{error}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
}

/// The realm of a request: `scheme://host` and the first 256 bytes of its target (Envoy's
/// `buildOriginalUri`, pinned on 1.40: gRPC answers and 403s have it too). What would end the quoted string is percent-encoded.
#[must_use]
pub(crate) fn realm(scheme: &str, authority: &str, target: &str) -> Box<str> {
    const TARGET_BYTES: usize = 256;
    let mut realm = format!("{scheme}://{authority}");
    let mut left = TARGET_BYTES;
    for character in target.chars() {
        let Some(rest) = left.checked_sub(character.len_utf8()) else { break };
        left = rest;
        match character {
            '"' => realm.push_str("%22"),
            '\\' => realm.push_str("%5C"),
            ' '..='~' => realm.push(character),
            _ => realm.push('?'),
        }
    }
    realm.into_boxed_str()
}
