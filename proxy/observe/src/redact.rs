//! Paths without identifiers (invariant 7).

/// Words of FHIR URLs that say nothing of a person (FHIR R5 http.html).
const WORDS: [&str; 8] = ["fhir", "metadata", "_history", "_search", "r4", "r5", "baseR4", "actuator"];

/// The path with every segment that may name someone or something replaced by `*`: resource type
/// names, `$operations` and the fixed words of FHIR's URLs stay.
///
/// ```
/// assert_eq!(observe::redact::path("/fhir/Patient/p-17/_history/3"), "/fhir/Patient/*/_history/*");
/// ```
#[must_use]
pub fn path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        if is_plain(segment) {
            out.push_str(segment);
        } else {
            out.push('*');
        }
    }
    out
}

fn is_plain(segment: &str) -> bool {
    segment.is_empty()
        || WORDS.contains(&segment)
        || fhir::is_resource_type(segment)
        || segment.strip_prefix('$').is_some_and(|operation| {
            !operation.is_empty()
                && operation.len() <= 40
                && operation.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_and_unknown_words_are_hidden() {
        assert_eq!(super::path("/Patient/alice"), "/Patient/*");
        assert_eq!(super::path("/Patient/p1/$everything"), "/Patient/*/$everything");
        assert_eq!(super::path("/"), "/");
        assert_eq!(super::path("/alice.smith@example.org"), "/*");
        assert_eq!(super::path("/Patient/$Alice Smith"), "/Patient/*");
    }
}
