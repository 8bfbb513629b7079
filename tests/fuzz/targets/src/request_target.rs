//! Request targets: one canonical form, in every mode.

use percent_encoding::percent_decode_str;
use policy::target::{CanonicalTarget, Normalization, TargetRules, canonicalize};

const MODES: [Normalization; 4] = [
    Normalization::None,
    Normalization::Base,
    Normalization::MergeSlashes,
    Normalization::DecodeAndMergeSlashes,
];

/// The bytes are a request target, as text.
///
/// - Strict: the canonical form is a fixed point in every mode, and says the same to whoever decodes it once
///   more: no dot segment, no new separator, parameter, control character or escape.
/// - Strictness only refuses: what it lets pass reads as without it.
/// - Without it: no dot segment is left where the mode resolves them, no run of slashes where it merges them.
/// - What was judged can be sent as it is.
pub fn request_target(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    for normalization in MODES {
        let strict = canonicalize(&raw, TargetRules { normalization, strict: true });
        let lenient = canonicalize(&raw, TargetRules { normalization, strict: false });
        if let Ok(target) = &strict {
            assert_eq!(Ok(target), lenient.as_ref(), "strictness changed {raw:?} under {normalization:?}");
            check_strict(target, normalization);
        }
        if let Ok(target) = &lenient {
            check(&raw, target, normalization);
        }
    }
}

/// What holds for every canonical form.
fn check(raw: &str, target: &CanonicalTarget, mode: Normalization) {
    let (whole, path) = (target.as_str(), target.path());
    let rebuilt = target.query().map_or(path.to_owned(), |query| format!("{path}?{query}"));
    assert_eq!(rebuilt, whole, "path and query are the whole");
    assert!(!path.contains(['?', '#']) && !whole.contains('#'), "{whole:?} of {raw:?}");
    assert!(whole.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{whole:?} of {raw:?}");
    assert!(path == "*" || path.starts_with('/'), "{whole:?} of {raw:?}");
    if let Ok(sent) = http::uri::PathAndQuery::try_from(whole) {
        assert_eq!(sent.as_str(), whole, "what is sent is not what was judged");
    }
    if mode == Normalization::None {
        return;
    }
    for segment in path.split('/') {
        let dots = segment.to_ascii_lowercase().replace("%2e", ".");
        assert!(dots != "." && dots != "..", "dot segment in {path:?} of {raw:?} under {mode:?}");
    }
    assert!(path.is_ascii() && !path.contains('\\'), "{path:?} of {raw:?} under {mode:?}");
    let merges = matches!(mode, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    assert!(!merges || path == "//" || !path.contains("//"), "{path:?} of {raw:?} under {mode:?}");
}

/// What holds for a target that a strict workload takes.
fn check_strict(target: &CanonicalTarget, normalization: Normalization) {
    let rules = TargetRules { normalization, strict: true };
    let again = canonicalize(target.as_str(), rules);
    assert_eq!(again.as_ref(), Ok(target), "not a fixed point under {normalization:?}");
    let path = target.path();
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let Ok(decoded) = String::from_utf8(decoded) else { panic!("{path:?} decodes to no text") };
    let separators = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    assert_eq!(separators(&decoded), separators(path), "an escape hides a slash in {path:?}");
    assert!(!decoded.contains([';', '\\']), "{path:?}");
    assert!(!decoded.bytes().any(|byte| byte < b' ' || byte == 0x7f), "{path:?}");
    assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."), "{path:?}");
    // A server that decodes twice reads the same.
    let twice: Vec<u8> = percent_decode_str(&decoded).collect();
    assert_eq!(twice, decoded.as_bytes(), "{path:?} decodes twice");
    let cut = target.without_parameter("access_token");
    let left = cut.query().into_iter().flat_map(|query| query.split('&'));
    let names = left.map(|pair| pair.split('=').next().unwrap_or_default());
    assert!(names.into_iter().all(|name| name != "access_token"), "{cut:?}");
    assert_eq!(cut.path(), path);
}
