//! Host names of gateways and routes: wildcards, intersection, lookup.
//!
//! Source: pkg/config/host of istio/istio; Envoy's virtual host matching (`domains`): exact first,
//! then the longest `*suffix`, then `*`, letter case ignored, the port left out.

use std::{borrow::Cow, collections::HashMap};

/// A host without its port (`h:80`, `[::1]:80`), in lower case.
pub(crate) fn host_of(authority: &str) -> Cow<'_, str> {
    let host = without_port(authority);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// The authority without its port.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The last colon of `[::1]` stands within the brackets.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let bare_v6 = host.contains(':') && !host.ends_with(']');
            if bare_v6 { authority } else { host }
        }
        _ => authority,
    }
}

/// The port of an authority, with its colon.
pub(crate) fn port_of(authority: &str) -> Option<&str> {
    authority.get(without_port(authority).len()..).filter(|port| !port.is_empty())
}

/// Whether each host that `narrow` covers is covered by `wide` too (Istio's `SubsetOf`).
pub(crate) fn is_subset(narrow: &str, wide: &str) -> bool {
    match (narrow.strip_prefix('*'), wide.strip_prefix('*')) {
        (Some(narrow_suffix), Some(wide_suffix)) => narrow_suffix.ends_with(wide_suffix),
        (Some(_), None) => false,
        (None, Some(wide_suffix)) => narrow.ends_with(wide_suffix),
        (None, None) => narrow == wide,
    }
}

/// The narrower of two names that cover each other; `None` where they have nothing in common.
pub(crate) fn intersect<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if is_subset(one, other) {
        Some(one)
    } else if is_subset(other, one) {
        Some(other)
    } else {
        None
    }
}

/// Values by host name, looked up as Envoy does.
#[derive(Debug, Clone)]
pub(crate) struct HostMap<T> {
    exact: HashMap<String, T, ahash::RandomState>,
    /// By what follows the star.
    suffixes: HashMap<String, T, ahash::RandomState>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffixes: HashMap::default(), any: None }
    }
}

impl<T: Default> HostMap<T> {
    /// The value of a host name or wildcard, made if it is not there.
    pub(crate) fn entry(&mut self, name: &str) -> &mut T {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some("") => self.any.get_or_insert_default(),
            Some(suffix) => self.suffixes.entry(suffix.to_owned()).or_default(),
            None => self.exact.entry(name).or_default(),
        }
    }
}

impl<T> HostMap<T> {
    /// The value for a request's host (lower case, no port).
    pub(crate) fn find(&self, host: &str) -> Option<&T> {
        if let Some(found) = self.exact.get(host) {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            // The star stands for one character at least; the longest suffix comes first.
            let found =
                host.char_indices().skip(1).find_map(|(start, _)| self.suffixes.get(host.get(start..)?));
            if found.is_some() {
                return found;
            }
        }
        self.any.as_ref()
    }

    /// All values, to finish them.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.suffixes.values_mut()).chain(self.any.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_intersect_as_istio_says() {
        let cases = [
            ("foo.com", "*.com", Some("foo.com")),
            ("*.com", "foo.com", Some("foo.com")),
            ("*", "127.0.0.1", Some("127.0.0.1")),
            ("*.foo.com", "foo.com", None),
            ("*.com", "*.foo.com", Some("*.foo.com")),
            ("*", "*", Some("*")),
            ("a.com", "b.com", None),
            ("*.a.com", "*.b.com", None),
        ];
        for (one, other, wanted) in cases {
            assert_eq!(intersect(one, other), wanted, "{one} {other}");
        }
    }

    #[test]
    fn the_most_specific_name_wins() {
        let mut map = HostMap::<u8>::default();
        for (name, value) in [("*", 1), ("*.example.com", 2), ("*.a.example.com", 3), ("A.example.com", 4)] {
            *map.entry(name) = value;
        }
        let cases = [
            ("other", Some(1)),
            ("x.example.com", Some(2)),
            ("x.a.example.com", Some(3)),
            ("a.example.com", Some(4)),
            (".example.com", Some(1)),
            ("example.com", Some(1)),
            ("", Some(1)),
        ];
        for (host, wanted) in cases {
            assert_eq!(map.find(host).copied(), wanted, "{host}");
        }
    }

    #[test]
    fn ports_are_left_out_and_case_is_ignored() {
        let cases = [
            ("127.0.0.1:8080", "127.0.0.1"),
            ("FHIR.example", "fhir.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("h:", "h"),
            ("h:x", "h:x"),
            ("::1", "::1"),
        ];
        for (authority, wanted) in cases {
            assert_eq!(host_of(authority), wanted, "{authority}");
        }
        assert_eq!(port_of("h:80"), Some(":80"));
        assert_eq!(port_of("h"), None);
    }
}
