//! From a parsed head to a canonical [`Request`]: what is ambiguous is refused, not guessed at, and
//! what leaves here is exactly what is judged and forwarded (invariant 6).
//!
//! | check | source |
//! |---|---|
//! | one valid `Host`, agreeing with an absolute-form target or `:authority` | RFC 9112 §3.2, RFC 9113 §8.3.1 |
//! | methods | RFC 9110 §9; HTTP/1 knows the registered ones only, as Envoy |
//! | `Content-Length`, `Transfer-Encoding` | RFC 9112 §6 |
//! | hop-by-hop headers are removed before anything is judged or added | RFC 9110 §7.6.1 |
//! | `Expect` | RFC 9110 §10.1.1 |
//! | target | `policy::target` |
//! | `x-forwarded-*`, `x-envoy-*`, `x-request-id` | Envoy, as Istio sets it up |

mod authority;
mod error;
mod forwarded;
mod framing;
mod hops;
mod method;
mod repeated;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts};
use identity::Edits;
use mesh::routing::HeaderEdits;
use policy::target::{self, CanonicalTarget, TargetError, TargetRules};

use crate::{Limits, Refusal, accept::Connection, dice::Dice, limits::Exceeded};

pub use error::HeadError;
pub(crate) use forwarded::{Edge, REQUEST_ID};
pub(crate) use hops::{is_hop_by_hop, is_token};

/// A request whose head is unambiguous, with its one canonical target. One maker: [`Request::read`].
///
/// `headers` holds exactly one `host`, equal to `authority`, whichever version it came by.
#[derive(Debug)]
pub struct Request {
    method: Method,
    target: CanonicalTarget,
    /// As received; asked again when a destination's rules are stricter.
    raw: Uri,
    rules: TargetRules,
    /// The canonical target before a rewrite.
    rewritten_from: Option<CanonicalTarget>,
    authority: String,
    headers: HeaderMap,
    upgrade: Option<String>,
    remote_ip: IpAddr,
}

/// What differs in a request from which its tokens are not taken.
#[derive(Debug)]
pub(crate) struct WithTokens {
    pub(crate) target: CanonicalTarget,
    pub(crate) headers: HeaderMap,
}

/// What `authorize` makes a `Permitted` of.
pub(crate) struct RequestParts {
    pub(crate) method: Method,
    pub(crate) target: CanonicalTarget,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) upgrade: Option<String>,
}

impl Request {
    /// Checks a head and brings it into its canonical form. Boxed: each room hands it on, and
    /// copying some 350 bytes at every door showed in the profile of a request.
    ///
    /// # Errors
    /// [`Refusal::Head`], [`Refusal::Target`], [`Refusal::Limit`].
    pub(crate) fn read(
        parts: Parts,
        connection: &Connection,
        edge: Edge,
        rules: TargetRules,
        (limits, dice): (&Limits, &Dice),
    ) -> Result<Box<Self>, Refusal> {
        let Parts { method, uri, version, mut headers, .. } = parts;
        check_version(version)?;
        if headers.len() > limits.header_count {
            return Err(Refusal::Limit(Exceeded::HeaderCount));
        }
        method::check(&method, version)?;
        let length = framing::check(&headers, version)?;
        if length.is_some_and(|n| n > limits.request_body_bytes) {
            return Err(Refusal::Limit(Exceeded::RequestBodyBytes));
        }
        framing::plain(&mut headers, length);
        check_expect(&mut headers)?;
        let upgrade = hops::remove(&mut headers, &method, version)?;
        repeated::join(&mut headers, version)?;
        let authority = authority::agree(&uri, &headers, version, connection.tls)?;
        set_host(&mut headers, &authority)?;
        target::check_headers(&headers, rules)?;
        let target = target::canonicalize(raw_target(&uri, &method, version)?, rules)?;
        let remote_ip = forwarded::apply(&mut headers, connection, edge, dice);
        let (raw, rewritten_from) = (uri, None);
        let fields =
            Self { method, target, raw, rules, rewritten_from, authority, headers, upgrade, remote_ip };
        Ok(Box::new(fields))
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) fn target(&self) -> &CanonicalTarget {
        &self.target
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(crate) fn remote_ip(&self) -> IpAddr {
        self.remote_ip
    }

    /// The canonical target as the client knows it: before any rewrite.
    pub(crate) fn original_target(&self) -> &CanonicalTarget {
        self.rewritten_from.as_ref().unwrap_or(&self.target)
    }

    /// The target as received.
    fn raw_target(&self) -> &str {
        self.raw.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }

    pub(crate) fn into_parts(self: Box<Self>) -> RequestParts {
        let Self { method, target, authority, headers, upgrade, .. } = *self;
        RequestParts { method, target, authority, headers, upgrade }
    }

    /// What the verified (or missing) token asks for: tokens out, claims in.
    pub(crate) fn apply(&mut self, edits: Edits) {
        let Edits { remove_headers, set_headers, remove_parameters } = edits;
        edit_headers(&mut self.headers, remove_headers, set_headers);
        for parameter in remove_parameters {
            self.target = self.target.without_parameter(&parameter);
        }
    }

    /// The form for a destination whose own proxy verifies the tokens again: they stay where they are.
    /// `is_output`: headers that are ours to set, and nobody's to bring.
    pub(crate) fn with_tokens(&self, edits: &Edits, is_output: impl Fn(&HeaderName) -> bool) -> WithTokens {
        let mut headers = self.headers.clone();
        let removed = edits.remove_headers.iter().filter(|name| is_output(name)).cloned();
        edit_headers(&mut headers, removed.collect(), edits.set_headers.clone());
        WithTokens { target: self.target.clone(), headers }
    }

    /// The request as the route sends it on: rewritten, edited, and canonical by the rules of its
    /// destination. `remote_ip` is what the destination reads from the gateway's `x-forwarded-for`.
    ///
    /// # Errors
    /// [`TargetError`], by the destination's rules or because a rewrite made a bad target;
    /// [`HeadError::BadHost`] where a manifest's new authority is no authority.
    pub(crate) fn reroute(
        mut self: Box<Self>,
        onward: Onward<'_>,
        rules: TargetRules,
        remote_ip: IpAddr,
    ) -> Result<Box<Self>, Refusal> {
        self.canonicalize_again(onward.path, rules)?;
        self.send_on(onward, remote_ip)
    }

    /// The request as the route sends it out of the mesh: nobody judges it again, so what the
    /// gateway judged stays as it is (a second normalisation may not leave it so: `.%2e;x`, `..;x`,
    /// `..`), but for what the route itself rewrites.
    ///
    /// # Errors
    /// As [`Request::reroute`].
    pub(crate) fn leave(
        mut self: Box<Self>,
        onward: Onward<'_>,
        remote_ip: IpAddr,
    ) -> Result<Box<Self>, Refusal> {
        if onward.path.is_some() {
            self.canonicalize_again(onward.path, self.rules)?;
        }
        self.send_on(onward, remote_ip)
    }

    fn send_on(mut self: Box<Self>, onward: Onward<'_>, remote_ip: IpAddr) -> Result<Box<Self>, Refusal> {
        if let Some(authority) = onward.authority {
            authority::check(authority)?;
            authority.clone_into(&mut self.authority);
        }
        apply_edits(&mut self.headers, onward.headers);
        if onward.headers.touches_host() {
            let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            if let Some(host) = host.filter(|host| authority::check(host).is_ok()) {
                host.clone_into(&mut self.authority);
            }
        }
        set_host(&mut self.headers, &self.authority)?;
        self.remote_ip = remote_ip;
        Ok(self)
    }

    fn canonicalize_again(&mut self, path: Option<&str>, rules: TargetRules) -> Result<(), TargetError> {
        if rules.strict && !self.rules.strict {
            // The gateway's form may hide what the destination wants refused.
            target::check_headers(&self.headers, rules)?;
            target::canonicalize(self.raw_target(), rules)?;
        }
        let fixed_point = rules == self.rules && rules.strict;
        match path {
            None if fixed_point => {}
            None => self.target = target::canonicalize(self.target.as_str(), rules)?,
            Some(path) => {
                let raw = match self.target.query() {
                    Some(query) => format!("{path}?{query}"),
                    None => path.to_owned(),
                };
                let rewritten = target::canonicalize(&raw, rules)?;
                let original = std::mem::replace(&mut self.target, rewritten);
                self.rewritten_from.get_or_insert(original);
            }
        }
        self.rules = rules;
        Ok(())
    }
}

/// What a route changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onward<'a> {
    pub(crate) path: Option<&'a str>,
    pub(crate) authority: Option<&'a str>,
    pub(crate) headers: &'a HeaderEdits,
}

/// HTTP/1.0 too, with its one Host (Envoy wants to be told so, `accept_http_10`).
fn check_version(version: Version) -> Result<(), HeadError> {
    match version {
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2 => Ok(()),
        _ => Err(HeadError::Version),
    }
}

/// `100-continue` is answered by us (the codec asks for the body once the request is permitted).
fn check_expect(headers: &mut HeaderMap) -> Result<(), HeadError> {
    if !headers.contains_key(header::EXPECT) {
        return Ok(());
    }
    let fine = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(header::EXPECT).iter().all(fine) {
        return Err(HeadError::Expectation);
    }
    headers.remove(header::EXPECT);
    Ok(())
}

fn raw_target<'a>(uri: &'a Uri, method: &Method, version: Version) -> Result<&'a str, Refusal> {
    let raw = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // Envoy's HTTP/1 codec takes ASCII only (RFC 9112 §3.2); over HTTP/2 the rest is escaped.
    if version != Version::HTTP_2 && !raw.is_ascii() {
        return Err(TargetError::NotNormalisable.into());
    }
    if raw == "*" && method != Method::OPTIONS {
        return Err(HeadError::AsteriskForm.into());
    }
    Ok(raw)
}

fn set_host(headers: &mut HeaderMap, authority: &str) -> Result<(), HeadError> {
    if headers.get(header::HOST).is_some_and(|host| host.as_bytes() == authority.as_bytes()) {
        return Ok(());
    }
    let value = HeaderValue::from_str(authority).map_err(|_| HeadError::BadHost)?;
    headers.insert(header::HOST, value);
    Ok(())
}

/// Names that no manifest and no token may touch: they frame the message.
fn is_framing(name: &HeaderName) -> bool {
    hops::is_hop_by_hop(name) || name == header::CONTENT_LENGTH
}

fn edit_headers(headers: &mut HeaderMap, remove: Vec<HeaderName>, set: Vec<(HeaderName, HeaderValue)>) {
    for name in remove.into_iter().filter(|name| !is_framing(name)) {
        headers.remove(name);
    }
    for (name, _) in set.iter().filter(|(name, _)| !is_framing(name)) {
        headers.remove(name);
    }
    for (name, value) in set.into_iter().filter(|(name, _)| !is_framing(name)) {
        headers.append(name, value);
    }
}

/// Edits of a route, in order remove, set, add.
pub(crate) fn apply_edits(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in edits.remove.iter().filter(|name| !is_framing(name)) {
        headers.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| !is_framing(name)) {
        headers.insert(name, value.clone());
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| !is_framing(name)) {
        headers.append(name, value.clone());
    }
}

/// Whether a route's edits name `host`.
trait TouchesHost {
    fn touches_host(&self) -> bool;
}

impl TouchesHost for HeaderEdits {
    fn touches_host(&self) -> bool {
        self.set.iter().chain(&self.add).any(|(name, _)| name == header::HOST)
    }
}
