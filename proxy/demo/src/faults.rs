//! Faults on demand: what an endpoint is told to do wrong, and how often it was asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

/// A fixed answer that an endpoint gives in place of its own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Further header fields, in order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, sent as it is.
    pub body: Bytes,
}

impl Answer {
    /// This status with no body.
    pub fn status(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// 200 with this body as `application/json`, whatever it holds.
    pub fn json(body: impl Into<Bytes>) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self { status: StatusCode::OK, headers: vec![(http::header::CONTENT_TYPE, json)], body: body.into() }
    }

    /// 302 to this place.
    pub fn redirect(location: HeaderValue) -> Self {
        let headers = vec![(http::header::LOCATION, location)];
        Self { status: StatusCode::FOUND, headers, body: Bytes::new() }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}

#[derive(Default)]
struct Knob {
    delay: Duration,
    answer: Option<Answer>,
    asked: u64,
}

/// One knob per endpoint. The endpoints are an enum, so the map is bounded by it.
pub(crate) struct Knobs<E>(Mutex<HashMap<E, Knob>>);

impl<E> Default for Knobs<E> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<E: Copy + Eq + Hash> Knobs<E> {
    fn lock(&self) -> MutexGuard<'_, HashMap<E, Knob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_delay(&self, endpoint: E, delay: Duration) {
        self.lock().entry(endpoint).or_default().delay = delay;
    }

    pub(crate) fn set_answer(&self, endpoint: E, answer: Option<Answer>) {
        self.lock().entry(endpoint).or_default().answer = answer;
    }

    pub(crate) fn asked(&self, endpoint: E) -> u64 {
        self.lock().get(&endpoint).map_or(0, |knob| knob.asked)
    }

    /// Counts the request on arrival, waits as told, and gives the fixed answer, if any.
    pub(crate) async fn pass(&self, endpoint: E) -> Option<Answer> {
        let (delay, answer) = {
            let mut knobs = self.lock();
            let knob = knobs.entry(endpoint).or_default();
            knob.asked = knob.asked.saturating_add(1);
            (knob.delay, knob.answer.clone())
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        answer
    }
}
