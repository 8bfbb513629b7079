//! Cross-origin requests that a route allows.
//!
//! Source: Envoy's cors filter as istiod fills it in (TranslateCORSPolicy); Gateway API's
//! HTTPCORSFilter (GEP-1767); fetch.spec.whatwg.org for the headers.

use http::{
    HeaderName, HeaderValue, Method,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    },
};
use serde::Deserialize;

use super::{
    RouteQuery,
    duration::ManifestDuration,
    text::{StringMatch, TextMatch},
};

/// VirtualService's `corsPolicy`, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CorsSpec {
    allow_origin: Vec<String>,
    allow_origins: Vec<StringMatch>,
    allow_methods: Vec<String>,
    allow_headers: Vec<String>,
    expose_headers: Vec<String>,
    max_age: Option<ManifestDuration>,
    allow_credentials: Option<bool>,
    unmatched_preflights: UnmatchedPreflights,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum UnmatchedPreflights {
    #[default]
    Unspecified,
    Forward,
    Ignore,
}

/// A CORS policy, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cors {
    pub(crate) origins: Vec<TextMatch>,
    pub(crate) methods: Option<HeaderValue>,
    pub(crate) headers: Option<HeaderValue>,
    pub(crate) expose: Option<HeaderValue>,
    pub(crate) max_age: Option<HeaderValue>,
    pub(crate) credentials: bool,
    /// Answer preflights of other origins (without permission) instead of forwarding them.
    pub(crate) ignore_unmatched: bool,
    /// Gateway API: `*` beside credentials means what the preflight asks for.
    pub(crate) echo_wildcards: bool,
}

/// What CORS makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CorsOutcome {
    /// The preflight is answered with these headers.
    Preflight(Vec<(HeaderName, HeaderValue)>),
    /// Go on; the response gets these.
    Continue(Vec<(HeaderName, HeaderValue)>),
}

impl CorsSpec {
    pub(crate) fn compile(&self) -> Result<Cors, String> {
        let origins = if self.allow_origins.is_empty() {
            self.allow_origin.iter().cloned().map(TextMatch::Exact).collect()
        } else {
            self.allow_origins.iter().map(StringMatch::required).collect::<Result<_, _>>()?
        };
        let max_age = self.max_age.map(|age| HeaderValue::from(age.0.as_secs()));
        Ok(Cors {
            origins,
            methods: list(&self.allow_methods)?,
            headers: list(&self.allow_headers)?,
            expose: list(&self.expose_headers)?,
            max_age,
            credentials: self.allow_credentials.unwrap_or(false),
            ignore_unmatched: self.unmatched_preflights == UnmatchedPreflights::Ignore,
            echo_wildcards: false,
        })
    }
}

/// A list header's value, as Envoy joins it; `None` where there is nothing to say.
pub(crate) fn list(values: &[String]) -> Result<Option<HeaderValue>, String> {
    if values.is_empty() {
        return Ok(None);
    }
    super::headers::plain_value(&values.join(",")).map(Some)
}

impl Cors {
    pub(crate) fn judge(&self, query: &RouteQuery<'_>) -> CorsOutcome {
        let Some(origin) = query.headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
            return CorsOutcome::Continue(Vec::new());
        };
        let wanted = query.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = query.method == Method::OPTIONS && wanted.is_some_and(|m| !m.is_empty());
        if !self.allows(origin) {
            return if preflight && self.ignore_unmatched {
                CorsOutcome::Preflight(Vec::new())
            } else {
                CorsOutcome::Continue(Vec::new())
            };
        }
        let mut headers = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
        if self.credentials {
            headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        let mut say = |name: HeaderName, value: &Option<HeaderValue>| {
            headers.extend(value.clone().map(|value| (name, value)));
        };
        if !preflight {
            say(ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose);
            return CorsOutcome::Continue(headers);
        }
        say(ACCESS_CONTROL_ALLOW_METHODS, &self.echoed(&self.methods, wanted));
        let asked = query.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        say(ACCESS_CONTROL_ALLOW_HEADERS, &self.echoed(&self.headers, asked));
        say(ACCESS_CONTROL_MAX_AGE, &self.max_age);
        CorsOutcome::Preflight(headers)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        // A matcher that takes the text `*` takes every origin (Envoy).
        self.origins.iter().any(|allowed| {
            allowed.matches(origin.as_bytes()) || (!self.echo_wildcards && allowed.matches(b"*"))
        })
    }

    fn echoed(&self, allowed: &Option<HeaderValue>, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match allowed {
            Some(all) if self.echo_wildcards && self.credentials && all == "*" => {
                Some(asked.unwrap_or(all).clone())
            }
            other => other.clone(),
        }
    }
}
