//! The upstream's answer: released or withheld. Today every answer is released, with the route's
//! header edits; rules about what an answer holds (scope, compartment) will withhold here.

use http::{HeaderName, HeaderValue, StatusCode, header, response};
use mesh::routing::HeaderEdits;

use crate::serve::head::{apply_edits, is_hop_by_hop};

#[cfg(test)]
mod tests;

/// A response head that may go to the client. One maker: [`release`].
#[derive(Debug)]
pub struct Released(response::Parts);

impl Released {
    /// The head to send.
    #[must_use]
    pub fn into_parts(self) -> response::Parts {
        self.0
    }
}

/// Judges a response head. `edits` and `cors` are those of the `Permitted` it answers.
///
/// Hop-by-hop headers end here (RFC 9110 §7.6.1); a 101's `upgrade` and `connection` are for the
/// server side to set again.
#[must_use]
pub fn release(
    mut head: response::Parts,
    edits: Option<&HeaderEdits>,
    cors: &[(HeaderName, HeaderValue)],
) -> Released {
    remove_hops(&mut head);
    if let Some(edits) = edits {
        apply_edits(&mut head.headers, edits);
    }
    if !cors.is_empty() {
        // The route's policy speaks, not the upstream's own (Envoy's cors filter overwrites).
        for (name, _) in cors {
            head.headers.remove(name);
        }
        for (name, value) in cors {
            head.headers.append(name, value.clone());
        }
    }
    Released(head)
}

fn remove_hops(head: &mut response::Parts) {
    let headers = &mut head.headers;
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
            .filter(|name| name != header::CONTENT_LENGTH)
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    let hops: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in hops {
        headers.remove(name);
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        headers.remove(header::CONTENT_LENGTH);
    }
}
