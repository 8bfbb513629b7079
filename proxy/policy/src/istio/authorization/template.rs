//! Path templates: `{*}` one segment, `{**}` the rest (Istio `paths`, Envoy's URI template).
//!
//! What the operators take is Envoy's character set, not "anything": `[`, `]`, quotes and non-ASCII
//! bytes stand for no operator (pinned on Envoy 1.40).

use std::fmt;

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Template {
    /// Segments before `{**}`, or all of them.
    head: Vec<Segment>,
    /// With `{**}`: the literal text after it (`/x/y`, may be empty).
    tail: Option<Box<str>>,
    source: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    One,
}

const ONE: &str = "{*}";
const REST: &str = "{**}";

/// Whether a `paths` value is a template at all.
pub(super) fn is_template(value: &str) -> bool {
    value.contains(ONE) || value.contains(REST)
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in words (Istio's admission, and what Envoy would refuse afterwards).
    pub(super) fn parse(value: &str) -> Result<Self, &'static str> {
        let inner = value.strip_prefix('/').ok_or("a path template begins with `/`")?;
        let (mut head, mut tail): (Vec<Segment>, Option<String>) = (Vec::new(), None);
        let last = inner.split('/').count() - 1;
        for (i, segment) in inner.split('/').enumerate() {
            let literal = match segment {
                ONE | REST if tail.is_some() => return Err("`{**}` must be the last operator"),
                ONE => {
                    head.push(Segment::One);
                    continue;
                }
                REST => {
                    tail = Some(String::new());
                    continue;
                }
                // A single trailing slash.
                "" if i == last && i > 0 => segment,
                "" => return Err("a path template has no empty segments"),
                _ if segment.contains(['{', '}']) => {
                    return Err("braces stand only as `{*}` or `{**}`, alone in their segment");
                }
                _ if segment.contains('*') => {
                    return Err("a path template cannot be mixed with `*`");
                }
                _ if !segment.bytes().all(takes) => {
                    return Err("a literal segment has characters that no path segment has");
                }
                _ => segment,
            };
            match &mut tail {
                Some(tail) => {
                    tail.push('/');
                    tail.push_str(literal);
                }
                None => head.push(Segment::Literal(literal.into())),
            }
        }
        Ok(Self { head, tail: tail.map(String::into_boxed_str), source: value.into() })
    }

    /// Whether a canonical path matches, whole.
    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        for (i, segment) in self.head.iter().enumerate() {
            let last = i + 1 == self.head.len() && self.tail.is_none();
            let (this, after) = match rest.split_once('/') {
                Some((this, after)) if !last => (this, after),
                None if last => (rest, ""),
                _ => return false,
            };
            let fits = match segment {
                Segment::Literal(text) => this == &**text,
                Segment::One => !this.is_empty() && this.bytes().all(takes),
            };
            if !fits {
                return false;
            }
            rest = after;
        }
        match &self.tail {
            None => true,
            Some(tail) => rest
                .strip_suffix(&**tail)
                .is_some_and(|middle| middle.bytes().all(|byte| takes(byte) || byte == b'/')),
        }
    }

    /// The literal text that every matching path begins with.
    pub(super) fn literal_prefix(&self) -> &str {
        let end = self.source.find('{').unwrap_or(self.source.len());
        self.source.get(..end).unwrap_or_default()
    }
}

/// What an operator takes, slashes apart.
fn takes(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'+'
                | b','
                | b';'
                | b':'
                | b'@'
                | b'='
                | b'*'
        )
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}
