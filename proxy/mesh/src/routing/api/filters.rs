//! HTTPRoute filters, compiled.

use http::{HeaderValue, StatusCode};
use policy::{
    Problem,
    manifest::{Located, codes},
};

use super::spec::{
    CorsSpec, FilterSpec, HeaderModifierSpec, HeaderSpec, PathModifierSpec, RedirectSpec, RewriteSpec,
};
use crate::routing::{
    cors::{self, Cors},
    headers::{Edits, authority, header_name, plain_value},
    redirect::{Redirect, RedirectPath, RedirectPort},
    rewrite::{PathRewrite, literal_path},
    text::{Pattern, TextMatch},
};

/// Seconds that a preflight's answer may be kept, where the filter does not say (GEP-1767).
const DEFAULT_MAX_AGE: u32 = 5;
/// An origin: scheme, host and port (RFC 6454 §6.1).
const ORIGIN: &str = r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+";

/// What the filters of a rule or backend do.
#[derive(Debug, Default)]
pub(super) struct Filters {
    pub(super) request: Edits,
    pub(super) response: Edits,
    pub(super) redirect: Option<Redirect>,
    pub(super) rewrite: Option<PathRewrite>,
    pub(super) authority: Option<String>,
    pub(super) cors: Option<Cors>,
    /// A filter that is not known: requests must get 500, never pass without it.
    pub(super) invalid: bool,
}

impl Filters {
    pub(super) fn read(specs: &[Located<FilterSpec>], problems: &mut Vec<Problem>) -> Result<Self, Problem> {
        let mut filters = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for spec in specs {
            let repeatable = matches!(spec.kind.as_str(), "RequestMirror" | "ExtensionRef");
            if !repeatable && seen.contains(&spec.kind.as_str()) {
                let text = format!("the filter {} stands twice", spec.kind);
                return Err(spec.error(codes::INVALID_VALUE, text));
            }
            seen.push(&spec.kind);
            filters.add(spec, problems).map_err(|text| spec.error(codes::INVALID_VALUE, text))?;
        }
        if let (Some(_), true, Some(first)) = (&filters.redirect, seen.contains(&"URLRewrite"), specs.first())
        {
            let text = "URLRewrite and RequestRedirect cannot stand together";
            return Err(first.error(codes::INVALID_VALUE, text));
        }
        Ok(filters)
    }

    fn add(&mut self, spec: &Located<FilterSpec>, problems: &mut Vec<Problem>) -> Result<(), String> {
        match spec.kind.as_str() {
            "RequestHeaderModifier" => {
                self.request = edits(needed(&spec.request_header_modifier, "requestHeaderModifier")?)?;
            }
            "ResponseHeaderModifier" => {
                let modifier = needed(&spec.response_header_modifier, "responseHeaderModifier")?;
                self.response = edits(modifier)?;
            }
            "RequestRedirect" => {
                self.redirect = Some(redirect(needed(&spec.request_redirect, "requestRedirect")?)?);
            }
            "URLRewrite" => {
                let RewriteSpec { hostname, path } = needed(&spec.url_rewrite, "urlRewrite")?;
                self.rewrite = path.as_ref().map(path_rewrite).transpose()?;
                self.authority = hostname.as_deref().map(authority).transpose()?;
            }
            "CORS" => self.cors = Some(read_cors(needed(&spec.cors, "cors")?)?),
            "RequestMirror" => {
                let text = "mirroring is not supported: requests go to the backends alone";
                problems.push(spec.warning(codes::NOT_ENFORCED, text));
            }
            "ExtensionRef" | "ExternalAuth" => {
                let text = format!("the filter {} is not supported: requests get 500", spec.kind);
                problems.push(spec.warning(codes::NOT_ENFORCED, text));
                self.invalid = true;
            }
            other => return Err(format!("`{other}` is no filter")),
        }
        Ok(())
    }
}

fn needed<'a, T>(field: &'a Option<T>, name: &str) -> Result<&'a T, String> {
    field.as_ref().ok_or_else(|| format!("`{name}` is missing"))
}

fn edits(spec: &HeaderModifierSpec) -> Result<Edits, String> {
    let mut edits = Edits::default();
    for name in spec.remove.iter().filter(|name| !name.eq_ignore_ascii_case("host")) {
        edits.headers.remove.push(header_name(name)?);
    }
    let mut pairs = |list: &[HeaderSpec]| -> Result<Vec<_>, String> {
        let mut pairs = Vec::new();
        for header in list {
            if header.name.eq_ignore_ascii_case("host") {
                edits.authority = Some(authority(&header.value)?);
            } else {
                pairs.push((header_name(&header.name)?, plain_value(&header.value)?));
            }
        }
        Ok(pairs)
    };
    let (add, set) = (pairs(&spec.add)?, pairs(&spec.set)?);
    (edits.headers.add, edits.headers.set) = (add, set);
    Ok(edits)
}

fn redirect(spec: &RedirectSpec) -> Result<Redirect, String> {
    let status = match spec.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).map_err(|e| e.to_string())?,
        code => return Err(format!("{code} is no redirect: 301, 302, 303, 307 or 308")),
    };
    let scheme = match spec.scheme.as_deref() {
        None | Some("http" | "https") => spec.scheme.clone(),
        Some(other) => return Err(format!("`{other}` is no scheme: http or https")),
    };
    let port = match (spec.port, &scheme) {
        (Some(port), _) => RedirectPort::Fixed(port),
        (None, Some(_)) => RedirectPort::SchemeDefault,
        (None, None) => RedirectPort::Listener,
    };
    let path = match &spec.path {
        None => RedirectPath::Keep,
        Some(path) => match path_rewrite(path)? {
            PathRewrite::Full(path) => RedirectPath::Replace(path),
            rewrite => RedirectPath::Segments(rewrite),
        },
    };
    let authority = spec.hostname.as_deref().map(authority).transpose()?;
    Ok(Redirect { status, scheme, authority, port, path })
}

fn path_rewrite(spec: &PathModifierSpec) -> Result<PathRewrite, String> {
    match (spec.kind.as_str(), &spec.replace_full_path, &spec.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), None) => literal_path(path).map(PathRewrite::Full),
        ("ReplacePrefixMatch", None, Some(prefix)) => {
            let prefix = prefix.trim_end_matches('/');
            if prefix.is_empty() {
                return Ok(PathRewrite::Segments(String::new()));
            }
            literal_path(prefix).map(PathRewrite::Segments)
        }
        _ => Err("a path modifier is ReplaceFullPath with `replaceFullPath`, or \
                  ReplacePrefixMatch with `replacePrefixMatch`"
            .to_owned()),
    }
}

fn read_cors(spec: &CorsSpec) -> Result<Cors, String> {
    let origins = spec.allow_origins.iter().map(|origin| read_origin(origin));
    Ok(Cors {
        origins: origins.collect::<Result<_, _>>()?,
        methods: cors::list(&spec.allow_methods)?,
        headers: cors::list(&spec.allow_headers)?,
        expose: cors::list(&spec.expose_headers)?,
        max_age: Some(HeaderValue::from(spec.max_age.unwrap_or(DEFAULT_MAX_AGE))),
        credentials: spec.allow_credentials,
        ignore_unmatched: true,
        echo_wildcards: true,
    })
}

/// An origin; a star stands for any text within the host.
fn read_origin(origin: &str) -> Result<TextMatch, String> {
    if origin == "*" {
        return Pattern::whole(ORIGIN).map(TextMatch::Regex);
    }
    if !origin.contains('*') {
        return Ok(TextMatch::Exact(origin.to_owned()));
    }
    let escaped: String = origin.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '*' => escaped.push_str(r"[^/?#\s]*"),
            c if c.is_ascii_punctuation() => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
        escaped
    });
    Pattern::whole(&escaped).map(TextMatch::Regex)
}
