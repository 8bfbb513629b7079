//! `Location` of redirects.
//!
//! Source: Envoy's RedirectAction (`newUri`, `processRequestHost`) as istiod fills it in
//! (ApplyRedirect); Gateway API's HTTPRequestRedirectFilter.

use http::StatusCode;

use super::{
    RouteQuery, Routed,
    condition::PathMatch,
    hosts::{port_of, without_port},
    rewrite::PathRewrite,
};

/// A redirect, checked.
#[derive(Debug, Clone)]
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    pub(crate) scheme: Option<String>,
    pub(crate) authority: Option<String>,
    pub(crate) port: RedirectPort,
    pub(crate) path: RedirectPath,
}

/// The port of the new location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectPort {
    /// The request's host as it is, but for a port that was the old scheme's default.
    Keep,
    /// The new scheme's default: none is written.
    SchemeDefault,
    /// The gateway's port.
    Listener,
    /// This.
    Fixed(u16),
}

/// The path of the new location.
#[derive(Debug, Clone)]
pub(crate) enum RedirectPath {
    /// The request's, with its query.
    Keep,
    /// This; with the request's query, where it has none itself.
    Replace(String),
    /// The matched segments by these, and the request's query.
    Segments(PathRewrite),
}

impl Redirect {
    pub(crate) fn answer(&self, query: &RouteQuery<'_>, matched: &PathMatch, listener_port: u16) -> Routed {
        let scheme = self.scheme.as_deref().unwrap_or(query.scheme);
        let port = match self.port {
            RedirectPort::Keep | RedirectPort::SchemeDefault => None,
            RedirectPort::Listener => Some(listener_port),
            RedirectPort::Fixed(port) => Some(port),
        };
        let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let host = match &self.authority {
            Some(authority) => authority,
            None => self.request_host(query, scheme, port.is_some()),
        };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let Some(path) = self.path.location(query, matched) else {
            return Routed::NoDestination { status: StatusCode::INTERNAL_SERVER_ERROR };
        };
        Routed::Redirect { status: self.status, location: format!("{scheme}://{host}{port}{path}") }
    }

    fn request_host<'a>(&self, query: &RouteQuery<'a>, scheme: &str, new_port: bool) -> &'a str {
        let old_default = match query.scheme {
            "https" => ":443",
            _ => ":80",
        };
        let scheme_changed = scheme != query.scheme && port_of(query.authority) == Some(old_default);
        if new_port || scheme_changed || self.port == RedirectPort::SchemeDefault {
            without_port(query.authority)
        } else {
            query.authority
        }
    }
}

impl RedirectPath {
    fn location(&self, query: &RouteQuery<'_>, matched: &PathMatch) -> Option<String> {
        let parameters = query.query.map(|query| format!("?{query}")).unwrap_or_default();
        Some(match self {
            Self::Keep => format!("{}{parameters}", query.path),
            Self::Replace(path) if path.contains('?') => path.clone(),
            Self::Replace(path) => format!("{path}{parameters}"),
            Self::Segments(rewrite) => {
                let path = rewrite.apply(matched, query.path).ok()?;
                format!("{}{parameters}", path.as_deref().unwrap_or(query.path))
            }
        })
    }
}

/// The redirect of a server with `tls.httpsRedirect`: the same host (and port) by https.
pub(crate) fn to_https(query: &RouteQuery<'_>) -> Routed {
    let parameters = query.query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("https://{}{}{parameters}", query.authority, query.path);
    Routed::Redirect { status: StatusCode::MOVED_PERMANENTLY, location }
}
