//! VirtualService matches, compiled (`TranslateRouteMatch`).

use std::collections::BTreeMap;

use policy::{
    Problem,
    manifest::{Located, codes},
};

use super::spec::MatchSpec;
use crate::routing::{
    condition::{Condition, HeaderMatch, ParameterMatch, PathMatch},
    headers::header_name,
    text::{StringMatch, TextMatch},
};

/// Routing by claims needs the token before the route is known: not supported.
const CLAIM_PREFIX: &str = "@request.auth.claims";

pub(super) fn read(spec: &Located<MatchSpec>) -> Result<Condition, Problem> {
    let optional = |text: &Option<Located<StringMatch>>| match text {
        Some(text) => required(text).map(Some),
        None => Ok(None),
    };
    let mut headers = header_matches(&spec.headers, false)?;
    headers.extend(header_matches(&spec.without_headers, true)?);
    let parameters = spec
        .query_params
        .iter()
        .map(|(name, text)| Ok(ParameterMatch { name: name.clone(), text: present_or(text)? }));
    Ok(Condition {
        path: spec.uri.as_ref().map_or(Ok(PathMatch::Any), path)?,
        ignore_case: spec.ignore_uri_case,
        method: optional(&spec.method)?,
        scheme: optional(&spec.scheme)?,
        authority: optional(&spec.authority)?,
        headers,
        parameters: parameters.collect::<Result<_, Problem>>()?,
    })
}

fn required(text: &Located<StringMatch>) -> Result<TextMatch, Problem> {
    text.required().map_err(|message| text.error(codes::INVALID_VALUE, message))
}

fn present_or(text: &Located<StringMatch>) -> Result<TextMatch, Problem> {
    let compiled = text.compile().map_err(|message| text.error(codes::INVALID_VALUE, message))?;
    Ok(compiled.unwrap_or(TextMatch::Present))
}

fn path(uri: &Located<StringMatch>) -> Result<PathMatch, Problem> {
    Ok(match required(uri)? {
        TextMatch::Exact(path) => PathMatch::Exact(path),
        TextMatch::Prefix(prefix) if prefix == "/" => PathMatch::Any,
        TextMatch::Prefix(prefix) => PathMatch::Prefix(prefix),
        TextMatch::Regex(pattern) => {
            PathMatch::Regex { source: uri.regex().unwrap_or_default().to_owned(), pattern }
        }
        TextMatch::Present => PathMatch::Any,
    })
}

fn header_matches(
    headers: &BTreeMap<String, Located<StringMatch>>,
    without: bool,
) -> Result<Vec<HeaderMatch>, Problem> {
    headers
        .iter()
        .map(|(name, text)| {
            if name.starts_with(CLAIM_PREFIX) {
                let message = "routing by claims is not supported";
                return Err(text.error(codes::NOT_ENFORCED, message));
            }
            let name =
                header_name(name).map_err(|message| text.error(codes::INVALID_HEADER_NAME, message))?;
            Ok(HeaderMatch { name, text: present_or(text)?, without })
        })
        .collect()
}
