//! Path templates: `{*}` is one whole segment, `{**}` zero or more.

/// A piece of a template.
#[derive(Clone, Copy)]
enum Piece {
    Byte(u8),
    Segment,
    Rest,
}

/// Whether a `paths` value is a template.
pub(super) fn is_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// Whether the template takes the whole path, found by trying every way to share it out.
pub(super) fn fits(template: &str, path: &[u8]) -> bool {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.bytes().next() {
        if let Some(after) = rest.strip_prefix("{**}") {
            pieces.push(Piece::Rest);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{*}") {
            pieces.push(Piece::Segment);
            rest = after;
        } else {
            pieces.push(Piece::Byte(first));
            rest = &rest[1..];
        }
    }
    shared_out(&pieces, path)
}

fn shared_out(pieces: &[Piece], path: &[u8]) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return path.is_empty() };
    match first {
        Piece::Byte(byte) => path.first() == Some(byte) && shared_out(rest, &path[1..]),
        // At least one character, none of them a slash.
        Piece::Segment => {
            let longest = path.iter().take_while(|byte| pchar(**byte)).count();
            (1..=longest).any(|taken| shared_out(rest, &path[taken..]))
        }
        Piece::Rest => {
            let longest = path.iter().take_while(|byte| pchar(**byte) || **byte == b'/').count();
            (0..=longest).any(|taken| shared_out(rest, &path[taken..]))
        }
    }
}

/// RFC 3986 section 3.3: unreserved, percent-encoded, sub-delims, `:` and `@`.
fn pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_documentation() {
        for (template, path, wanted) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo/bar/baz.txt/", true),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/{*}/bar/{**}", "/foo/bar/", true),
            ("/{*}/bar/{**}", "/foo/bar", false),
            ("/{*}/bar/{**}", "/buzz/bar/bool/buz", true),
            ("/{*}/baz/{**}", "/foo/bar/baz", false),
            ("/{*}", "/[", false),
        ] {
            assert_eq!(fits(template, path.as_bytes()), wanted, "{template} {path}");
        }
    }
}
