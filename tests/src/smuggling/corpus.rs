//! The case files.
//!
//! ```text
//! ## A comment.
//! == name of a case
//! POST /public HTTP/1.1            each line is sent with CRLF behind it
//! Host: h
//! Content-Length: 2
//!
//! ok\                              but for one with a backslash at its end
//! => 200 403 close                 the final answers in their order; `close`: the proxy then closes
//! ^ POST /public |ok               what the upstream has seen: method, target, body
//! + x-forwarded-proto: http        that request has this header and value
//! - connection                     and not this one
//! ```
//!
//! `\r \n \t \v \f \0 \s \\ \xNN` are bytes, `{9*a}` is nine `a`s. `/public` is replaced by a path of
//! the same length that says which case it is. `?` for `^`: the upstream may have seen the request's
//! beginning, and never its end; `*`: it may have seen the request. `=> open`: no answer, no close;
//! `=> ends`: our side is closed, and there is no answer or a 400.
//! Over HTTP/2 a case is `name = value` lines, `@data text`, `@headers`
//! (trailers, or a second head) and `@end` (an empty DATA frame), in the order they are sent; the last
//! one ends the stream. Its outcome is a status, or `reset` (RST_STREAM, GOAWAY or a close).

use std::{fmt::Write, fs, path::Path};

/// One case.
#[derive(Debug)]
pub struct Case {
    /// File and name.
    pub name: String,
    /// What is sent.
    pub lines: Vec<Line>,
    /// Final answers.
    pub answers: Vec<u16>,
    /// The proxy closes.
    pub closes: bool,
    /// The client closes its side before its message is whole.
    pub ends: bool,
    /// HTTP/2: the stream is reset.
    pub resets: bool,
    /// What the upstream sees.
    pub seen: Vec<Wanted>,
    /// Whether the outcome has begun.
    told: bool,
}

/// A line, its escapes undone.
#[derive(Debug)]
pub struct Line {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether CRLF follows.
    pub ends: bool,
}

/// A request that the upstream sees.
#[derive(Debug, Default)]
pub struct Wanted {
    /// How much of it.
    pub sight: Sight,
    /// Method.
    pub method: String,
    /// Target, `/public` for the case's own.
    pub target: String,
    /// Body.
    pub body: Vec<u8>,
    /// Headers that it has.
    pub with: Vec<(String, String)>,
    /// Names of headers that it has not.
    pub without: Vec<String>,
}

/// How much of a request the upstream sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sight {
    /// All.
    #[default]
    Whole,
    /// Nothing, or a part.
    Cut,
    /// Nothing, or all.
    Perhaps,
}

/// The path that stands for `/public` in the case of this number.
#[must_use]
pub fn path(number: usize) -> String {
    format!("/p{number:05}")
}

impl Case {
    /// All cases of a file.
    ///
    /// # Panics
    /// When the file is not as it should be.
    #[must_use]
    pub fn load(file: &Path) -> Vec<Self> {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let mut cases: Vec<Self> = Vec::new();
        for line in fs::read_to_string(file).unwrap().lines() {
            if let Some(name) = line.strip_prefix("== ") {
                cases.push(Self::new(format!("{stem}: {name}")));
            } else if !line.starts_with("##") {
                match cases.last_mut() {
                    Some(case) => case.read(line),
                    None => assert!(line.is_empty(), "{stem}: before the first case: {line}"),
                }
            }
        }
        for case in &cases {
            assert!(case.told && !case.lines.is_empty(), "{case:?}");
        }
        cases
    }

    fn new(name: String) -> Self {
        let (lines, answers, seen) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, lines, answers, closes: false, ends: false, resets: false, seen, told: false }
    }

    fn read(&mut self, line: &str) {
        let told = self.told;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "=>" => {
                self.told = true;
                for word in rest.split(' ') {
                    match word {
                        "close" => self.closes = true,
                        "reset" => self.resets = true,
                        "ends" => self.ends = true,
                        "open" => {}
                        status => self.answers.push(status.parse().expect("a status")),
                    }
                }
            }
            "^" if told => self.seen.push(Wanted::read(rest, Sight::Whole)),
            "?" if told => self.seen.push(Wanted::read(rest, Sight::Cut)),
            "*" if told => self.seen.push(Wanted::read(rest, Sight::Perhaps)),
            "+" if told => {
                let (name, value) = rest.split_once(": ").expect("name: value");
                self.last().with.push((name.to_owned(), value.to_owned()));
            }
            "-" if told => self.last().without.push(rest.to_owned()),
            _ if told => assert!(line.is_empty(), "{}: {line}", self.name),
            _ => {
                let (text, ends) = line.strip_suffix('\\').map_or((line, true), |text| (text, false));
                self.lines.push(Line { bytes: unescape(text), ends });
            }
        }
    }

    fn last(&mut self) -> &mut Wanted {
        self.seen.last_mut().expect("a request")
    }

    /// The bytes of an HTTP/1 case.
    #[must_use]
    pub fn bytes(&self, number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            bytes.extend_from_slice(&own(&line.bytes, number));
            bytes.extend_from_slice(if line.ends { b"\r\n" } else { b"" });
        }
        bytes
    }
}

impl Wanted {
    fn read(text: &str, sight: Sight) -> Self {
        let (head, body) = text.split_once(" |").unwrap_or((text, ""));
        let (method, target) = head.split_once(' ').expect("method and target");
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { sight, method, target, body: unescape(body), ..Self::default() }
    }
}

/// With the case's own path.
#[must_use]
pub fn own(bytes: &[u8], number: usize) -> Vec<u8> {
    let (from, to) = (b"/public", path(number));
    let (mut all, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        all.extend_from_slice(&rest[..at]);
        all.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    all.extend_from_slice(rest);
    all
}

/// Undoes escapes.
///
/// # Panics
/// At an escape that is none.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        if let Some((count, what)) = repeated(rest) {
            bytes.extend(unescape(what).repeat(count));
            taken = rest.find('}').expect("the end of a repetition") + 1;
        } else if first == '\\' {
            taken = 2;
            bytes.push(match rest.as_bytes()[1] {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'v' => 0x0b,
                b'f' => 0x0c,
                b'0' => 0,
                b's' => b' ',
                b'\\' => b'\\',
                b'x' => {
                    taken = 4;
                    u8::from_str_radix(&rest[2..4], 16).expect("two digits")
                }
                other => panic!("no escape: {}", char::from(other)),
            });
        } else {
            bytes.extend_from_slice(&rest.as_bytes()[..taken]);
        }
        rest = &rest[taken..];
    }
    bytes
}

fn repeated(text: &str) -> Option<(usize, &str)> {
    let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
    let (count, what) = inside.split_once('*')?;
    Some((count.parse().ok()?, what))
}

/// Bytes as a reader can take them in.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(4000) {
        let _ = write!(text, "{}", byte.escape_ascii());
        if *byte == b'\n' {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(
            unescape("a\\r\\n\\t\\v\\f\\0\\s\\\\\\x7f{3*\\t}{x}"),
            b"a\r\n\t\x0b\x0c\0 \\\x7f\t\t\t{x}"
        );
        assert_eq!(own(b"GET /public?/public", 7), b"GET /p00007?/p00007");
    }
}
