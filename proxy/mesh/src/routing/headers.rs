//! Header edits of routes, checked and folded together.
//!
//! Source: TranslateHeadersOperations of istio/istio; Envoy's header parser (removals before
//! additions; what a later level sets replaces what an earlier one added).

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use policy::manifest::Located;
use serde::Deserialize;

use super::HeaderEdits;

/// `headers:` of a VirtualService's route or destination, as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeadersSpec {
    pub(crate) request: Option<OperationsSpec>,
    pub(crate) response: Option<OperationsSpec>,
}

/// `set`, `add`, `remove`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OperationsSpec {
    set: BTreeMap<String, Located<String>>,
    add: BTreeMap<String, Located<String>>,
    remove: Vec<String>,
}

/// Checked edits, and the authority that setting `host` means.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edits {
    pub(crate) headers: HeaderEdits,
    pub(crate) authority: Option<String>,
}

impl OperationsSpec {
    pub(crate) fn compile(&self) -> Result<Edits, String> {
        let mut edits = Edits::default();
        for name in self.remove.iter().filter(|name| !is_internal(name)) {
            edits.headers.remove.push(header_name(name)?);
        }
        // `set` wins over `add` where both name the host.
        for (pairs, setting) in [(&self.add, false), (&self.set, true)] {
            for (name, value) in pairs {
                if is_authority(name) {
                    edits.authority = Some(authority(value)?);
                }
                if is_internal(name) {
                    continue;
                }
                let pair = (header_name(name)?, header_value(value)?);
                let list = if setting { &mut edits.headers.set } else { &mut edits.headers.add };
                list.push(pair);
            }
        }
        Ok(edits)
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

/// A header's name, as manifests write it.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, String> {
    name.to_ascii_lowercase().parse().map_err(|_| format!("`{name}` is no header name"))
}

/// A literal header value. Envoy's command operators (`%REQ(X)%`) are not known here, and sending
/// them as text would tell the upstream something false: refused. `%%` is a percent sign.
pub(crate) fn header_value(value: &str) -> Result<HeaderValue, String> {
    let literal = value.replace("%%", "\u{0}");
    if literal.contains('%') {
        return Err(format!("`{value}`: command operators (`%…%`) are not supported"));
    }
    plain_value(&literal.replace('\u{0}', "%"))
}

/// A header value without any substitution (Gateway API).
pub(crate) fn plain_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("`{value}` is no header value"))
}

/// A host to send upstream, with or without port.
pub(crate) fn authority(text: &str) -> Result<String, String> {
    let fits = !text.contains('@') && text.parse::<http::uri::Authority>().is_ok();
    fits.then(|| text.to_owned()).ok_or_else(|| format!("`{text}` is no host"))
}

/// `first`, then `second`, as one set of edits.
/// With `removals_first` all removals come before anything is added (one Envoy header parser);
/// without, `second` also removes what `first` added (two levels).
pub(crate) fn compose(first: &HeaderEdits, second: &HeaderEdits, removals_first: bool) -> HeaderEdits {
    let sets = |name: &HeaderName| second.set.iter().any(|(set, _)| set == name);
    let removes = |name: &HeaderName| !removals_first && second.remove.contains(name);
    let survives = |pair: &&(HeaderName, HeaderValue)| !sets(&pair.0) && !removes(&pair.0);
    HeaderEdits {
        remove: first.remove.iter().chain(&second.remove).cloned().collect(),
        set: first.set.iter().filter(survives).chain(&second.set).cloned().collect(),
        add: first.add.iter().filter(survives).chain(&second.add).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderMap;

    use super::*;

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderEdits {
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
        };
        HeaderEdits {
            remove: remove.iter().map(|name| name.parse().unwrap()).collect(),
            set: pairs(set),
            add: pairs(add),
        }
    }

    fn apply(edits: &HeaderEdits, headers: &mut HeaderMap) {
        for name in &edits.remove {
            headers.remove(name);
        }
        for (name, value) in &edits.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &edits.add {
            headers.append(name, value.clone());
        }
    }

    #[test]
    fn composed_edits_do_what_two_levels_in_turn_do() {
        let kinds = [
            edits(&[], &[], &[("x", "added")]),
            edits(&["x"], &[], &[]),
            edits(&[], &[("x", "set")], &[]),
            edits(&["x"], &[], &[("x", "again")]),
            edits(&[], &[("x", "set2")], &[("x", "more"), ("y", "z")]),
        ];
        for first in &kinds {
            for second in &kinds {
                let (mut one, mut two) = (HeaderMap::new(), HeaderMap::new());
                for map in [&mut one, &mut two] {
                    map.insert("x", "original".parse().unwrap());
                }
                apply(first, &mut one);
                apply(second, &mut one);
                apply(&compose(first, second, false), &mut two);
                assert_eq!(one, two, "{first:?} then {second:?}");
            }
        }
    }

    #[test]
    fn command_operators_are_refused_and_percent_signs_kept() {
        assert!(header_value("%REQ(authorization)%").is_err());
        assert_eq!(header_value("100%%").unwrap(), "100%");
        assert!(header_value("a\r\nb: c").is_err());
        assert!(authority("user@host").is_err());
        assert!(authority("a b").is_err());
        assert_eq!(authority("h:80").unwrap(), "h:80");
    }
}
