//! What a server makes of a connection's bytes.
//!
//! The strict reading refuses everything that two servers could take differently. The sloppy ones
//! refuse nothing, and each errs in its own way. Where all agree, nobody can be made to see a request
//! that was not judged.

use std::ops::Range;

/// A request as the strict reading has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Target, as sent.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Without its chunks.
    pub body: Vec<u8>,
    /// As `headers`.
    pub trailers: Vec<(String, String)>,
    /// Whether its end is there.
    pub complete: bool,
}

impl Seen {
    /// The values of a header, and of a trailer of that name.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let all = self.headers.iter().chain(&self.trailers);
        all.filter(|header| header.0 == name).map(|header| header.1.as_str()).collect()
    }
}

/// Reads a connection strictly.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn strict(bytes: &[u8]) -> Result<Vec<Seen>, String> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let end = find(rest, b"\r\n\r\n").ok_or("a head without its end")?;
        let (method, target, headers) = head(&rest[..end])?;
        rest = &rest[end + 4..];
        let length = length(&headers)?;
        let mut seen =
            Seen { method, target, headers, body: Vec::new(), trailers: Vec::new(), complete: true };
        match length {
            Some(length) => {
                seen.complete = rest.len() >= length;
                let (body, after) = rest.split_at(length.min(rest.len()));
                seen.body = body.to_vec();
                rest = after;
            }
            None => rest = chunks(&mut seen, rest)?,
        }
        all.push(seen);
    }
    Ok(all)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

type Head = (String, String, Vec<(String, String)>);

fn head(bytes: &[u8]) -> Result<Head, String> {
    // Each byte a character: names and targets are ASCII, values need not be.
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("the request line {words:?}"));
    };
    if !is_token(method) || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the method or the target of {words:?}"));
    }
    let mut headers = Vec::new();
    for line in lines {
        headers.push(header(line)?);
    }
    for once in ["host", "content-length", "transfer-encoding"] {
        if headers.iter().filter(|header| header.0 == once).count() > 1 {
            return Err(format!("{once} twice"));
        }
    }
    if !headers.iter().any(|header| header.0 == "host") {
        return Err("no host".to_owned());
    }
    Ok((method.to_owned(), target.to_owned(), headers))
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("a header without a colon: {line:?}"))?;
    if !is_token(name) || value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("the header {line:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn is_token(text: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(in_token)
}

/// `None`: chunked.
fn length(headers: &[(String, String)]) -> Result<Option<usize>, String> {
    let get = |name: &str| headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str());
    match (get("content-length"), get("transfer-encoding")) {
        (Some(_), Some(_)) => Err("Content-Length beside Transfer-Encoding".to_owned()),
        (None, Some("chunked")) => Ok(None),
        (None, Some(other)) => Err(format!("the Transfer-Encoding {other:?}")),
        (None, None) => Ok(Some(0)),
        (Some(digits), None) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| format!("the Content-Length {digits}"))
        }
        (Some(other), None) => Err(format!("the Content-Length {other:?}")),
    }
}

/// Gives what is behind the body; nothing, where its end is not there.
fn chunks<'a>(seen: &mut Seen, mut rest: &'a [u8]) -> Result<&'a [u8], String> {
    seen.complete = false;
    while let Some(end) = find(rest, b"\r\n") {
        let digits = String::from_utf8_lossy(&rest[..end]).into_owned();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the chunk size {digits:?}"));
        }
        let size = usize::from_str_radix(&digits, 16).map_err(|_| format!("the chunk size {digits}"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            return trailers(seen, rest);
        }
        seen.body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size.saturating_add(2) {
            break;
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Err("a chunk without its CRLF".to_owned());
        }
        rest = &rest[size + 2..];
    }
    Ok(&[])
}

fn trailers<'a>(seen: &mut Seen, mut rest: &'a [u8]) -> Result<&'a [u8], String> {
    while let Some(end) = find(rest, b"\r\n") {
        let line: String = rest[..end].iter().copied().map(char::from).collect();
        rest = &rest[end + 2..];
        if line.is_empty() {
            seen.complete = true;
            return Ok(rest);
        }
        let (name, value) = header(&line)?;
        if ["host", "content-length", "transfer-encoding", "authorization"].contains(&name.as_str()) {
            return Err(format!("{name} in a trailer"));
        }
        seen.trailers.push((name, value));
    }
    Ok(&[])
}

/// How a sloppy server errs.
#[derive(Debug, Clone, Copy)]
pub struct Sloppy {
    /// A lone CR ends a line too; a lone LF always does.
    pub bare_cr: bool,
    /// Where both are there, `Content-Length` counts.
    pub length_first: bool,
    /// Of several lengths the last counts.
    pub last_length: bool,
    /// A folded line is a header of its own.
    pub unfolds: bool,
}

impl Sloppy {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let bit = |number: u8, at: u8| number >> at & 1 == 1;
        let one = |number| Self {
            bare_cr: bit(number, 0),
            length_first: bit(number, 1),
            last_length: bit(number, 2),
            unfolds: bit(number, 3),
        };
        (0..16).map(one).collect()
    }

    /// Method and target of each request that this server would serve.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Vec<(String, String)> {
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            while matches!(bytes.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            if at >= bytes.len() {
                return all;
            }
            let mut lines = Vec::new();
            while let Some((line, next)) = self.line(bytes, at) {
                at = next;
                if line.is_empty() {
                    break;
                }
                lines.push(String::from_utf8_lossy(&bytes[line]).into_owned());
            }
            if lines.is_empty() {
                // The rest is no line: what there is of a request is still one.
                lines.push(String::from_utf8_lossy(&bytes[at..]).into_owned());
                at = bytes.len();
            }
            let mut words = lines[0].split_whitespace().map(str::to_owned);
            all.push((words.next().unwrap_or_default(), words.next().unwrap_or_default()));
            at = self.skip_body(bytes, at, &lines[1..]);
        }
    }

    /// The line at `at` without its end, and where the next begins.
    fn line(self, bytes: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
        let rest = bytes.get(at..)?;
        let ends = |byte: &u8| *byte == b'\n' || self.bare_cr && *byte == b'\r';
        let end = at + rest.iter().position(ends)?;
        let pair = bytes[end] == b'\r' && bytes.get(end + 1) == Some(&b'\n');
        let next = end + if pair { 2 } else { 1 };
        let end = if end > at && bytes[end - 1] == b'\r' { end - 1 } else { end };
        Some((at..end, next))
    }

    fn skip_body(self, bytes: &[u8], at: usize, lines: &[String]) -> usize {
        let (mut lengths, mut chunked) = (Vec::new(), false);
        for (name, value) in self.headers(lines) {
            // Whatever stands before the colon: spaces, tabs, other controls.
            match name.trim_matches(|c: char| c.is_whitespace() || c.is_control()) {
                "content-length" => lengths.push(number(&value, 10)),
                "transfer-encoding" => chunked |= value.to_ascii_lowercase().contains("chunked"),
                _ => {}
            }
        }
        let length = if self.last_length { lengths.last() } else { lengths.first() };
        match (chunked, length) {
            (true, None) => self.skip_chunks(bytes, at),
            (true, Some(_)) if !self.length_first => self.skip_chunks(bytes, at),
            (_, Some(length)) => at.saturating_add(*length).min(bytes.len()),
            (false, None) => at,
        }
    }

    fn headers(self, lines: &[String]) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            match (line.starts_with([' ', '\t']) && !self.unfolds, headers.last_mut()) {
                (true, Some((_, value))) => value.push_str(line),
                _ => {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    headers.push((name.to_ascii_lowercase(), value.to_owned()));
                }
            }
        }
        headers
    }

    fn skip_chunks(self, bytes: &[u8], mut at: usize) -> usize {
        while let Some((line, next)) = self.line(bytes, at) {
            let size = number(&String::from_utf8_lossy(&bytes[line]), 16);
            at = next.saturating_add(size).min(bytes.len());
            if size > 0 {
                at += usize::from(bytes.get(at) == Some(&b'\r'));
                at += usize::from(bytes.get(at) == Some(&b'\n'));
                continue;
            }
            while let Some((line, next)) = self.line(bytes, at) {
                at = next;
                if line.is_empty() {
                    return at;
                }
            }
        }
        bytes.len()
    }
}

/// The digits at the beginning, after signs and spaces and `0x`; 0 where there are none.
fn number(text: &str, radix: u32) -> usize {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control() || c == '+' || c == '-');
    let text = if radix == 16 { text.strip_prefix("0x").unwrap_or(text) } else { text };
    let digits: String = text.chars().take_while(|c| c.is_digit(radix)).collect();
    match (digits.is_empty(), usize::from_str_radix(&digits, radix)) {
        (true, _) => 0,
        (false, read) => read.unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(bytes: &str) -> Vec<Vec<String>> {
        let read = |how: Sloppy| how.read(bytes.as_bytes()).into_iter().map(|seen| seen.1).collect();
        Sloppy::all().into_iter().map(read).collect()
    }

    #[test]
    fn everybody_agrees_on_what_is_plain() {
        let text = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 19\r\n\r\nGET /b HTTP/1.1\r\n\r\n\
            POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n\
            GET /d HTTP/1.1\r\nHost: h\r\n\r\n";
        let seen = strict(text.as_bytes()).unwrap();
        assert_eq!(seen.iter().map(|seen| &*seen.target).collect::<Vec<_>>(), ["/a", "/c", "/d"]);
        assert_eq!(seen[1].body, b"abc");
        assert!(seen.iter().all(|seen| seen.complete));
        assert!(targets(text).iter().all(|read| read == &["/a", "/c", "/d"]), "{:?}", targets(text));
    }

    #[test]
    fn what_is_cut_short_is_told_so() {
        let text = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc";
        let seen = strict(text.as_bytes()).unwrap();
        assert_eq!((seen.len(), seen[0].complete, &*seen[0].body), (1, false, &b"abc"[..]));
        assert!(targets(text).iter().all(|read| read == &["/a"]));
    }

    #[test]
    fn every_trick_deceives_somebody_and_is_refused_strictly() {
        for (head, body) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
            ("Content-Length: 0\r\nContent-Length: 19", ""),
            ("X: y\r\n Content-Length: 19", ""),
            ("X: y\rContent-Length: 19", ""),
            ("X: y\nContent-Length: 19", ""),
            ("Content-Length : 19", ""),
            ("Transfer-Encoding: x, chunked", "1\r\na\r\n0\r\n\r\n"),
        ] {
            let text = format!("POST /a HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{body}GET /b HTTP/1.1\r\n\r\n");
            assert!(strict(text.as_bytes()).is_err(), "{head:?}");
        }
        let both = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 24\r\nTransfer-Encoding: chunked\r\n\r\n\
            0\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        assert!(targets(both).iter().any(|read| read.len() == 2));
        assert!(targets(both).iter().any(|read| read.len() == 1));
    }
}
