//! Text to documents: where each begins, so that a broken one does not take the others along.

/// One document of a stream, markers and comments included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its text.
    pub(super) text: &'a str,
    /// How many lines of the stream stand before it.
    pub(super) lines_before: usize,
}

/// Splits at document markers. A line that begins with `---` or `...` and then white space is a
/// marker wherever it stands (YAML 1.2.2, 9.1.2: it is forbidden inside every kind of scalar).
/// Documents of nothing but comments and directives are left out, as kubectl leaves them out.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = offset + line.len();
        // The text up to a marker is one document; `---` belongs to the next, `...` to neither.
        let cut = match marker(line) {
            Some(Marker::Start) => Some((offset, number)),
            Some(Marker::End) => Some((end, number + 1)),
            None => None,
        };
        if let Some((next, next_line)) = cut {
            push(&mut documents, text.get(start..offset), start_line);
            (start, start_line) = (next, next_line);
        }
        offset = end;
    }
    push(&mut documents, text.get(start..), start_line);
    documents
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: Option<&'a str>, lines_before: usize) {
    let Some(text) = text else { return };
    let said = text.lines().any(|line| {
        let line = if marker(line).is_some() { line.get(3..).unwrap_or("") } else { line };
        let content = line.trim_start();
        !(content.is_empty() || content.starts_with('#') || line.starts_with('%'))
    });
    if said {
        documents.push(Document { text, lines_before });
    }
}

enum Marker {
    Start,
    End,
}

fn marker(line: &str) -> Option<Marker> {
    let (head, rest) = line.split_at_checked(3)?;
    let ends = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    match head {
        "---" if ends => Some(Marker::Start),
        "..." if ends => Some(Marker::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn texts(text: &str) -> Vec<(&str, usize)> {
        split(text).iter().map(|one| (one.text, one.lines_before)).collect()
    }

    #[test]
    fn empties_and_comments_are_no_documents() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("---\n---\n# only a comment\n---\n\n...\n"), []);
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [("---\na: 1\n", 1)]);
    }

    #[test]
    fn markers_split_and_lines_are_counted() {
        let parts = texts("a: 1\n---\nb: 2\n...\n# c\n--- # tail\nc: 3");
        assert_eq!(parts, [("a: 1\n", 0), ("---\nb: 2\n", 1), ("--- # tail\nc: 3", 5)]);
    }

    #[test]
    fn dashes_that_are_no_marker_do_not_split() {
        assert_eq!(texts("a: |\n  ---\n  x\n----\n").len(), 1);
        assert_eq!(texts("---x\n").len(), 1);
        assert_eq!(texts("--- {a: 1}\r\n---\r\nb: 1\r\n").len(), 2);
        assert_eq!(texts("---é\n").len(), 1);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(texts("\u{feff}a: 1"), [("a: 1", 0)]);
    }
}
