//! The nearest known name to a misspelt one.

/// Names longer than this are not compared: nobody misspells a field by that much.
const MAX_NAME: usize = 64;

/// The known name that `unknown` was likely meant to be: the same but for case, or a few edits away.
pub(crate) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    if unknown.len() > MAX_NAME {
        return None;
    }
    if let Some(same) = known.iter().find(|name| name.eq_ignore_ascii_case(unknown)) {
        return Some(same);
    }
    let allowed = (unknown.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|name| (distance(&unknown.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (b, above) in to.iter().zip(row.iter().skip(1)) {
            let cost = diagonal + usize::from(a != *b);
            left = cost.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["methods", "notMethods", "paths", "hosts", "jwksUri"];
        assert_eq!(nearest("method", &known), Some("methods"));
        assert_eq!(nearest("notmethods", &known), Some("notMethods"));
        assert_eq!(nearest("jwksURI", &known), Some("jwksUri"));
        assert_eq!(nearest("jwks_uri", &known), Some("jwksUri"));
        assert_eq!(nearest("zzz", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
