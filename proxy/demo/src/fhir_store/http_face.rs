//! HTTP around the interactions: mounts, media types, limits, header fields.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, ETAG, HOST, LAST_MODIFIED, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::interact::{Ask, Conditions, Reply, interact};
use super::problem::Problem;
use super::search::{Pairs, parse_pairs};
use super::{Mount, Store, bundle};

const FHIR_JSON: &str = "application/fhir+json;charset=utf-8";
/// What counts as FHIR's JSON (http.html, "Content Types and encodings"), HAPI's habits included.
const JSON_TYPES: [&str; 4] =
    ["application/fhir+json", "application/json", "application/json+fhir", "text/json"];

pub(super) fn router(store: Arc<Store>) -> Router {
    Router::new().fallback(handle).with_state(store)
}

async fn handle(State(store): State<Arc<Store>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    store.recorder.record(&parts);
    if let Some(answer) = store.knobs.pass(()).await {
        return answer.into_response();
    }
    if let Some(response) = health(&parts) {
        return response;
    }
    let done = match serve(&store, &parts, body).await {
        Ok(reply) => render(&parts, reply),
        Err(problem) => refuse(&problem),
    };
    // A HEAD answer has the length of the GET answer and no body (RFC 9110, 9.3.2).
    if parts.method == Method::HEAD { done.map(|_| Body::empty()) } else { done }
}

/// Spring Boot's health endpoint, which HAPI's image has for its probes.
fn health(parts: &Parts) -> Option<Response> {
    let path = parts.uri.path();
    let probe = path.strip_prefix("/actuator/health")?;
    if parts.method != Method::GET || !matches!(probe, "" | "/liveness" | "/readiness") {
        return None;
    }
    Some(([(CONTENT_TYPE, "application/json")], r#"{"status":"UP"}"#).into_response())
}

async fn serve(store: &Store, parts: &Parts, body: Body) -> Result<Reply, Problem> {
    let (mount, rest) = find_mount(&store.settings.mounts, parts.uri.path())?;
    acceptable(parts)?;
    let bytes = collect(body, store.settings.max_body).await?;
    let segments = decode_path(rest)?;
    let path: Vec<_> = segments.iter().map(String::as_str).collect();
    let mut query = parse_pairs(parts.uri.query().unwrap_or_default())?;
    let base = base_url(parts, mount);
    let conditions = conditions(&parts.headers);
    if path.is_empty() && parts.method == Method::POST {
        let body = json_body(parts, &bytes)?;
        let frame = bundle::Frame {
            version: mount.version,
            base: &base,
            prefer: &conditions.prefer,
            max_entries: store.settings.max_entries,
        };
        return bundle::process(&mut store.data(mount.version), frame, &body);
    }
    let body = match (parts.method.as_str(), path.last()) {
        ("POST", Some(&"_search")) => {
            query.extend(form(parts, &bytes)?);
            None
        }
        ("POST" | "PUT", _) => Some(json_body(parts, &bytes)?),
        _ => None,
    };
    let ask = Ask {
        version: mount.version,
        base: &base,
        method: &parts.method,
        path,
        query,
        conditions,
        body,
        reserved: None,
    };
    interact(&mut store.data(mount.version), ask)
}

/// The longest mount that the path lies under, and the rest of the path.
fn find_mount<'a>(mounts: &'a [Mount], path: &'a str) -> Result<(&'a Mount, &'a str), Problem> {
    let under = |mount: &'a Mount| {
        let rest = path.strip_prefix(mount.path.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest))
    };
    let found = mounts.iter().filter_map(under).max_by_key(|(mount, _)| mount.path.len());
    found.ok_or_else(|| Problem::not_found("no FHIR server answers at this path"))
}

/// Decoded segments; one slash at the end means nothing.
fn decode_path(rest: &str) -> Result<Vec<String>, Problem> {
    let trimmed = rest.strip_prefix('/').unwrap_or(rest);
    let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    let decode = |segment: &str| {
        let decoded = percent_decode_str(segment).decode_utf8().map(|text| text.into_owned());
        decoded.map_err(|_| Problem::invalid("the path is not UTF-8 once decoded"))
    };
    trimmed.split('/').map(decode).collect()
}

/// The base URL as the client named it.
fn base_url(parts: &Parts, mount: &Mount) -> String {
    let host = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = parts.uri.authority().map(http::uri::Authority::as_str).or_else(host);
    format!("http://{}{}", named.unwrap_or("localhost"), mount.path.trim_end_matches('/'))
}

fn conditions(headers: &HeaderMap) -> Conditions {
    let text = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    Conditions {
        if_match: text("if-match"),
        if_none_match: text("if-none-match"),
        if_none_exist: text("if-none-exist"),
        prefer: text("prefer").unwrap_or_default(),
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("a body may have {limit} bytes here");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", text))
        }
        Err(error) => Err(Problem::invalid(format!("the body ended early: {error}"))),
    }
}

/// The media type without its parameters, in lower case.
fn media_type(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn content_type(parts: &Parts) -> Option<String> {
    let value = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.map(media_type)
}

fn unsupported(found: &str) -> Problem {
    let text = format!("{found:?} is not a media type that this server reads");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-supported", text)
}

fn json_body(parts: &Parts, bytes: &Bytes) -> Result<Value, Problem> {
    let found = content_type(parts).ok_or_else(|| Problem::invalid("no Content-Type header was given"))?;
    if !JSON_TYPES.contains(&found.as_str()) {
        return Err(unsupported(&found));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "structure", error.to_string()))
}

/// The parameters in the body of a POST `_search`.
fn form(parts: &Parts, bytes: &Bytes) -> Result<Pairs, Problem> {
    match content_type(parts).as_deref() {
        Some("application/x-www-form-urlencoded") => {
            let text = std::str::from_utf8(bytes);
            parse_pairs(text.map_err(|_| Problem::invalid("the form is not UTF-8"))?)
        }
        None if bytes.is_empty() => Ok(Pairs::new()),
        found => Err(unsupported(found.unwrap_or_default())),
    }
}

/// 406 for a client that takes no JSON.
fn acceptable(parts: &Parts) -> Result<(), Problem> {
    let format = parts.uri.query().unwrap_or_default().split('&');
    let format = format.filter_map(|pair| pair.strip_prefix("_format=")).next_back();
    let json =
        |name: &str| name == "json" || JSON_TYPES.contains(&name) || matches!(name, "*/*" | "application/*");
    let fine = match format {
        Some(format) => {
            let decoded = percent_decode_str(format).decode_utf8_lossy().replace(' ', "+");
            json(&media_type(&decoded))
        }
        None => {
            let mut values = parts.headers.get_all(ACCEPT).iter().peekable();
            values.peek().is_none()
                || values
                    .filter_map(|value| value.to_str().ok())
                    .flat_map(|value| value.split(','))
                    .any(|name| json(&media_type(name)))
        }
    };
    if fine {
        return Ok(());
    }
    let text = "this server writes application/fhir+json only";
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-supported", text))
}

fn render(parts: &Parts, reply: Reply) -> Response {
    let pretty = parts.uri.query().is_some_and(|q| q.split('&').any(|p| p == "_pretty=true"));
    let mut response = match &reply.body {
        Some(body) => json_response(reply.status, body, pretty),
        None => reply.status.into_response(),
    };
    let headers = response.headers_mut();
    put(headers, ETAG, reply.etag);
    put(headers, LOCATION, reply.location);
    let modified = reply.updated.map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    put(headers, LAST_MODIFIED, modified);
    response
}

/// A value that no header can carry (a client's own odd Host) is left out.
fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

fn refuse(problem: &Problem) -> Response {
    let mut response = json_response(problem.status, &problem.outcome(), false);
    put(response.headers_mut(), ALLOW, problem.allow.map(str::to_owned));
    response
}

fn json_response(status: StatusCode, body: &Value, pretty: bool) -> Response {
    let text = if pretty { format!("{body:#}") } else { body.to_string() };
    (status, [(CONTENT_TYPE, FHIR_JSON)], text).into_response()
}
