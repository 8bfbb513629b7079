//! What reached the store, for tests that ask what the proxy forwarded.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{HeaderMap, Method, Version};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// The method.
    pub method: Method,
    /// The target's path, undecoded.
    pub path: String,
    /// The target's query, undecoded, without the question mark.
    pub query: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: Version,
    /// `:authority` or Host.
    pub authority: Option<String>,
    /// All header fields.
    pub headers: HeaderMap,
}

pub(super) struct Recorder {
    limit: usize,
    requests: Mutex<VecDeque<RecordedRequest>>,
}

impl Recorder {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, requests: Mutex::default() }
    }

    pub(super) fn record(&self, parts: &Parts) {
        if self.limit == 0 {
            return;
        }
        let host = || parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let named = parts.uri.authority().map(http::uri::Authority::as_str).or_else(host);
        let request = RecordedRequest {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            version: parts.version,
            authority: named.map(str::to_owned),
            headers: parts.headers.clone(),
        };
        let mut requests = self.lock();
        while requests.len() >= self.limit {
            requests.pop_front();
        }
        requests.push_back(request);
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.lock().iter().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecordedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
