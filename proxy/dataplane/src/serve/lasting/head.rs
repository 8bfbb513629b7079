//! A request's head, kept for the case that it is wanted again.
//!
//! In bytes of its own, not as a clone: that costs two allocations and a count for each header, and holds on to
//! the buffer in which the head was received.

use std::cell::RefCell;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};

/// Bytes of a length that is told before them.
const LENGTH: usize = size_of::<u32>();

/// Buffers kept for the next heads, per thread: with a token in it one is larger than what the allocator has at
/// hand, and cost a request 2 %.
const SPARES: usize = 64;
/// Larger ones are not kept.
const SPARE_BYTES: usize = 8 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(super) struct Head {
    method: Method,
    version: Version,
    /// The target and then each header's name and value, each after its length.
    texts: Vec<u8>,
}

impl Head {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut texts = SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_default();
        let target = parts.uri.path_and_query().filter(|_| parts.uri.scheme().is_none());
        match target {
            Some(target) => put(&mut texts, target.as_str().as_bytes()),
            None => put(&mut texts, parts.uri.to_string().as_bytes()),
        }
        for (name, value) in &parts.headers {
            put(&mut texts, name.as_str().as_bytes());
            put(&mut texts, value.as_bytes());
        }
        Self { method: parts.method.clone(), version: parts.version, texts }
    }

    /// The head again. None would be a bug of ours.
    pub(super) fn parts(&self) -> Option<Parts> {
        let mut rest = self.texts.as_slice();
        let mut parts = Request::new(()).into_parts().0;
        (parts.method, parts.version) = (self.method.clone(), self.version);
        parts.uri = Uri::try_from(take(&mut rest)?).ok()?;
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(take(&mut rest)?).ok()?;
            parts.headers.append(name, HeaderValue::from_bytes(take(&mut rest)?).ok()?);
        }
        Some(parts)
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        let mut texts = std::mem::take(&mut self.texts);
        if texts.capacity() > SPARE_BYTES {
            return;
        }
        texts.clear();
        // A thread that ends has none left.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.push(texts);
            }
        });
    }
}

fn put(texts: &mut Vec<u8>, text: &[u8]) {
    // Heads are limited to far less; longer, it could not be taken again.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    texts.extend_from_slice(&length.to_ne_bytes());
    texts.extend_from_slice(text);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<LENGTH>()?;
    let (text, behind) = behind.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
    *rest = behind;
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_kept_comes_back_as_it_came() {
        for target in ["/", "/a/../b?x=%2F&y", "//a//b", "*", "http://a/b?c", "https://a:8443", "/%E4{}\"?{}"]
        {
            let request = Request::builder().method("PATCH").uri(target).version(Version::HTTP_2);
            let request = request.header("x-empty", "").header("x-two", "1").header("host", "a");
            let value = HeaderValue::from_bytes(b"\xff\tz").unwrap();
            let (mut parts, ()) = request.header("x-two", value).body(()).unwrap().into_parts();
            parts.headers.get_mut("host").unwrap().set_sensitive(true);
            let kept = Head::of(&parts).parts().unwrap();
            assert_eq!((&kept.method, kept.version), (&parts.method, parts.version));
            assert_eq!(kept.uri, parts.uri, "{target}");
            assert_eq!(kept.uri.path_and_query(), parts.uri.path_and_query(), "{target}");
            assert_eq!(kept.headers, parts.headers);
        }
    }
}
