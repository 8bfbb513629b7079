//! One `jwtRules` entry: as written, to checked.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, header};

use super::{
    JwtRule, KeySource, TokenPlace, jwks,
    spec::{ClaimToHeader, FromHeader, JwtRuleSpec, Strings},
    uri,
};
use crate::{
    Problem,
    manifest::{Located, codes, parse_duration},
};

/// `timeout` where none is given.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest `timeout` (CRD).
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// Most `spaceDelimitedClaims` (CRD `maxItems`).
const MAX_SPACE_DELIMITED: usize = 64;

/// Checks one entry; `None` where it cannot be used at all.
pub(super) fn read(
    spec: Located<JwtRuleSpec>,
    origin: &Arc<str>,
    problems: &mut Vec<Problem>,
) -> Option<JwtRule> {
    let Located { value: rule, place, field } = spec;
    if rule.issuer.is_none() && rule.jwks_uri.is_none() {
        let text = "a JWT rule needs `issuer` or `jwksUri`";
        problems.push(Problem::error(codes::JWT_RULE_WITHOUT_ISSUER, place, field, text));
        return None;
    }
    let issuer = rule.issuer.map(|issuer| text(issuer, problems)).unwrap_or_default();
    Some(JwtRule {
        issuer,
        audiences: texts(rule.audiences, problems),
        keys: keys(rule.jwks, rule.jwks_uri, problems),
        places: places(rule.from_headers, rule.from_params, rule.from_cookies, problems),
        output_payload_to_header: rule
            .output_payload_to_header
            .and_then(|name| output_header(&name, problems)),
        forward_original_token: rule.forward_original_token,
        output_claim_to_headers: claims_to_headers(rule.output_claim_to_headers, problems),
        timeout: rule.timeout.map_or(DEFAULT_TIMEOUT, |text| timeout(&text, problems)),
        space_delimited_claims: space_delimited(rule.space_delimited_claims, problems),
        origin: origin.clone(),
        place,
    })
}

fn keys(
    jwks: Option<Located<String>>,
    jwks_uri: Option<Located<String>>,
    problems: &mut Vec<Problem>,
) -> KeySource {
    match (jwks, jwks_uri) {
        (Some(_), Some(uri)) => {
            let text = "only one of `jwks` and `jwksUri` may be set";
            problems.push(uri.error(codes::JWKS_TWICE, text));
            KeySource::Uri(uri.value)
        }
        (Some(inline), None) => {
            if let Err((code, text)) = jwks::check(&inline) {
                problems.push(inline.error(code, text));
            }
            KeySource::Inline(inline.value)
        }
        (None, Some(uri)) => {
            if let Err(text) = uri::check(&uri) {
                problems.push(uri.error(codes::INVALID_JWKS_URI, text));
            }
            KeySource::Uri(uri.value)
        }
        (None, None) => KeySource::Discovery,
    }
}

/// Setting any place turns both defaults off.
fn places(
    headers: Vec<Located<FromHeader>>,
    parameters: Strings,
    cookies: Strings,
    problems: &mut Vec<Problem>,
) -> Vec<TokenPlace> {
    let mut places = Vec::new();
    if headers.is_empty() && parameters.is_empty() && cookies.is_empty() {
        let prefix = "Bearer ".to_owned();
        places.push(TokenPlace::Header { name: header::AUTHORIZATION, prefix });
        places.push(TokenPlace::Parameter("access_token".to_owned()));
        return places;
    }
    for header in headers {
        let FromHeader { name, prefix } = header.value;
        if let Some(name) = own_header(&name, "hold a token", problems) {
            places.push(TokenPlace::Header { name, prefix });
        }
    }
    places.extend(texts(parameters, problems).into_iter().map(TokenPlace::Parameter));
    places.extend(texts(cookies, problems).into_iter().map(TokenPlace::Cookie));
    places
}

fn claims_to_headers(
    list: Vec<ClaimToHeader>,
    problems: &mut Vec<Problem>,
) -> Vec<(HeaderName, Vec<String>)> {
    let mut read = Vec::new();
    for ClaimToHeader { header, claim } in list {
        let claim = text(claim, problems);
        if let Some(header) = output_header(&header, problems) {
            read.push((header, claim.split('.').map(str::to_owned).collect()));
        }
    }
    read
}

fn header_name(name: &Located<String>, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    let read = HeaderName::from_bytes(name.as_bytes()).ok();
    if read.is_none() {
        let text = format!("`{}` is not a header name", name.value);
        problems.push(name.error(codes::INVALID_HEADER_NAME, text));
    }
    read
}

fn output_header(name: &Located<String>, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    own_header(name, "take a claim", problems)
}

/// A header that we set or remove: not one that frames the message or says where it goes.
fn own_header(name: &Located<String>, what: &str, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    let read = header_name(name, problems)?;
    let framing = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
    ];
    if framing.contains(&read) {
        let text = format!("`{read}` carries the message itself and cannot {what}");
        problems.push(name.error(codes::INVALID_HEADER_NAME, text));
    }
    Some(read)
}

fn timeout(text: &Located<String>, problems: &mut Vec<Problem>) -> Duration {
    let read = parse_duration(text).filter(|duration| *duration >= MIN_TIMEOUT);
    read.unwrap_or_else(|| {
        let message = format!("`{}` is not a duration of 1ms or more, such as `5s`", text.value);
        problems.push(text.error(codes::INVALID_DURATION, message));
        DEFAULT_TIMEOUT
    })
}

fn space_delimited(claims: Option<Located<Strings>>, problems: &mut Vec<Problem>) -> Vec<String> {
    let Some(claims) = claims else { return Vec::new() };
    if claims.len() > MAX_SPACE_DELIMITED {
        let text = format!("{} claims, at most {MAX_SPACE_DELIMITED}", claims.len());
        problems.push(claims.error(codes::TOO_MANY, text));
    }
    texts(claims.value, problems)
}

fn texts(list: Strings, problems: &mut Vec<Problem>) -> Vec<String> {
    list.into_iter().map(|one| text(one, problems)).collect()
}

/// A text that must not be empty (CRD `minLength: 1`).
fn text(one: Located<String>, problems: &mut Vec<Problem>) -> String {
    if one.is_empty() {
        problems.push(one.error(codes::INVALID_VALUE, "must not be empty; leave it out"));
    }
    one.value
}
