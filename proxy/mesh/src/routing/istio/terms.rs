//! What a VirtualService's route does, compiled (`TranslateRoute`).

use std::sync::Arc;

use base64::Engine as _;
use http::StatusCode;
use policy::{
    Problem,
    manifest::{Located, codes},
};

use super::spec::{
    DerivePort, DirectResponseSpec, HttpRouteSpec, RedirectSpec, RewriteSpec, RouteDestinationSpec,
};
use crate::routing::{
    HeaderEdits,
    action::{Action, Forwarding, Terms, Weighted},
    cors::CorsSpec,
    destination::{Registry, full_name, mesh_sni},
    duration::ManifestDuration,
    fault::{Fault, FaultSpec},
    headers::{Edits, HeadersSpec, authority, compose},
    redirect::{Redirect, RedirectPath, RedirectPort},
    retry::{self, RetrySpec},
    rewrite::{PathRewrite, literal_path},
};

/// Longest body of a direct response, bytes (istiod's limit).
const MAX_BODY_BYTES: usize = 1024 * 1024;

pub(super) fn read(
    http: &Located<HttpRouteSpec>,
    namespace: &str,
    registry: &Registry,
    problems: &mut Vec<Problem>,
) -> Result<Terms, Problem> {
    if let Some(delegate) = &http.delegate {
        return Err(delegate.error(codes::NOT_ENFORCED, "delegates are not supported"));
    }
    for mirror in [&http.mirror, &http.mirrors].into_iter().flatten() {
        let text = "mirroring is not supported: requests go to the route's destination alone";
        problems.push(mirror.warning(codes::NOT_ENFORCED, text));
    }
    let action = match (&http.redirect, &http.direct_response, http.route.as_slice()) {
        (Some(redirect), None, []) => {
            let read = read_redirect(redirect).map_err(|text| invalid(redirect, text))?;
            Action::Redirect(read)
        }
        (None, Some(response), []) => read_response(response).map_err(|text| invalid(response, text))?,
        (None, None, [_, ..]) => Action::Forward(read_forwarding(http, namespace, registry, problems)?),
        _ => {
            let text = "exactly one of `route`, `redirect` and `directResponse` is needed";
            return Err(invalid(http, text.to_owned()));
        }
    };
    if let (Some(rewrite), Action::Redirect(_) | Action::Respond { .. }) = (&http.rewrite, &action) {
        return Err(invalid(rewrite, "`rewrite` needs `route` beside it".to_owned()));
    }
    let fault = optional(&http.fault, FaultSpec::compile)?;
    let cors = optional(&http.cors_policy, CorsSpec::compile)?;
    Ok(Terms { fault: fault.unwrap_or_else(Fault::default), cors, action })
}

fn invalid<T>(what: &Located<T>, text: String) -> Problem {
    what.error(codes::INVALID_VALUE, text)
}

fn optional<S, T>(
    spec: &Option<Located<S>>,
    compile: impl FnOnce(&S) -> Result<T, String>,
) -> Result<Option<T>, Problem> {
    let Some(spec) = spec else { return Ok(None) };
    compile(spec).map(Some).map_err(|text| invalid(spec, text))
}

fn read_redirect(spec: &RedirectSpec) -> Result<Redirect, String> {
    let status = match spec.redirect_code.unwrap_or(301) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).map_err(|e| e.to_string())?,
        code => return Err(format!("{code} is no redirect: 301, 302, 303, 307 or 308")),
    };
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let host = given(&spec.authority).map(|host| authority(&host)).transpose()?;
    let port = match (spec.port, spec.derive_port) {
        (None | Some(0), None | Some(DerivePort::FromProtocolDefault)) => RedirectPort::Keep,
        (None | Some(0), Some(DerivePort::FromRequestPort)) => RedirectPort::Listener,
        (Some(port), None) => RedirectPort::Fixed(port),
        (Some(_), Some(_)) => return Err("only one of `port` and `derivePort` may be given".into()),
    };
    let path = match given(&spec.uri) {
        Some(uri) => RedirectPath::Replace(location_path(&uri)?),
        None => RedirectPath::Keep,
    };
    Ok(Redirect { status, scheme: scheme(given(&spec.scheme))?, authority: host, port, path })
}

/// A scheme to redirect to.
fn scheme(scheme: Option<String>) -> Result<Option<String>, String> {
    match scheme.as_deref() {
        None | Some("http" | "https") => Ok(scheme),
        Some(other) => Err(format!("`{other}` is no scheme: http or https")),
    }
}

/// A redirect's path may bring its own query.
fn location_path(uri: &str) -> Result<String, String> {
    let path = uri.split_once('?').map_or(uri, |(path, _)| path);
    literal_path(path)?;
    let printable = uri.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    printable.then(|| uri.to_owned()).ok_or_else(|| format!("`{uri}` cannot stand in a location"))
}

fn read_response(spec: &DirectResponseSpec) -> Result<Action, String> {
    let status = StatusCode::from_u16(spec.status)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or_else(|| format!("{} is no status from 200 to 599", spec.status))?;
    let body = match &spec.body {
        None => String::new(),
        Some(body) => match (&body.string, &body.bytes) {
            (Some(text), None) => text.clone(),
            (None, Some(bytes)) => base64::engine::general_purpose::STANDARD
                .decode(bytes)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or("`bytes` must be the base64 of a text")?,
            _ => return Err("one of `string` and `bytes` is needed".to_owned()),
        },
    };
    if body.len() > MAX_BODY_BYTES {
        return Err(format!("the body has {} bytes, at most {MAX_BODY_BYTES}", body.len()));
    }
    Ok(Action::Respond { status, body })
}

fn read_forwarding(
    http: &HttpRouteSpec,
    namespace: &str,
    registry: &Registry,
    problems: &mut Vec<Problem>,
) -> Result<Forwarding, Problem> {
    let level = edits(&http.headers)?;
    let (rewrite, rewritten) = match &http.rewrite {
        Some(spec) => read_rewrite(spec).map_err(|text| invalid(spec, text))?,
        None => (None, None),
    };
    let route_authority = rewritten.or(level.0.authority.clone());
    let alone = http.route.len() == 1;
    let mut destinations = Vec::new();
    for destination in &http.route {
        if !alone && destination.weight == 0 {
            continue;
        }
        let own = edits(&destination.headers)?;
        let mut read = read_destination(destination, (namespace, registry), problems);
        // One destination is part of the route's own header parser; several are a level below it.
        let fold = |own: &HeaderEdits, route: &HeaderEdits| {
            Arc::new(if alone { compose(route, own, true) } else { compose(own, route, false) })
        };
        read.request_headers = fold(&own.0.headers, &level.0.headers);
        read.response_headers = fold(&own.1.headers, &level.1.headers);
        read.authority = match own.0.authority {
            Some(own) if !alone || route_authority.is_none() => Some(own),
            _ => route_authority.clone(),
        };
        destinations.push(read);
    }
    if let ([], Some(first)) = (destinations.as_slice(), http.route.first()) {
        return Err(invalid(first, "no destination of the route has a weight".to_owned()));
    }
    let retries = optional(&http.retries, RetrySpec::compile)?;
    Ok(Forwarding {
        destinations,
        rewrite,
        timeout: http.timeout.and_then(ManifestDuration::limit),
        retries: retries.unwrap_or_else(retry::default_policy),
        unknown_status: StatusCode::SERVICE_UNAVAILABLE,
    })
}

/// Request and response edits.
fn edits(spec: &Option<Located<HeadersSpec>>) -> Result<(Edits, Edits), Problem> {
    let read = optional(spec, |spec| {
        let of = |operations: &Option<_>| match operations {
            Some(operations) => super::super::headers::OperationsSpec::compile(operations),
            None => Ok(Edits::default()),
        };
        Ok((of(&spec.request)?, of(&spec.response)?))
    })?;
    Ok(read.unwrap_or_default())
}

fn read_rewrite(spec: &RewriteSpec) -> Result<(Option<PathRewrite>, Option<String>), String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let path = match (given(&spec.uri), &spec.uri_regex_rewrite) {
        (Some(uri), None) => Some(PathRewrite::prefix(&uri)?),
        (None, Some(regex)) => Some(PathRewrite::regex(&regex.pattern, &regex.rewrite)?),
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err("only one of `uri` and `uriRegexRewrite` may be given".to_owned());
        }
    };
    let host = given(&spec.authority).map(|host| authority(&host)).transpose()?;
    if path.is_none() && host.is_none() {
        return Err("nothing to rewrite: `uri`, `uriRegexRewrite` or `authority`".to_owned());
    }
    Ok((path, host))
}

fn read_destination(
    spec: &Located<RouteDestinationSpec>,
    (namespace, registry): (&str, &Registry),
    problems: &mut Vec<Problem>,
) -> Weighted {
    let destination = &spec.destination;
    let host = full_name(&destination.host, namespace);
    let port = destination.port.as_ref().map(|port| port.number);
    let subset = destination.subset.as_deref().filter(|subset| !subset.is_empty());
    let target = registry.target(&host, port, subset);
    if !target.is_known() {
        let text = format!(
            "`{host}` names no Service or ServiceEntry with that port and subset, and the \
             settings' `upstreams` do not say where it is: requests get 503"
        );
        problems.push(destination.host.warning(crate::codes::UNKNOWN_DESTINATION, text));
    }
    let sni = port.map(|port| mesh_sni(&host, port, subset).into());
    Weighted {
        weight: spec.weight.into(),
        sni,
        host: host.into(),
        target,
        authority: None,
        request_headers: Arc::default(),
        response_headers: Arc::default(),
    }
}
