//! Requests with one thing less in them.

use serde_json::{Value, json};

use crate::oracle::model::{Body, Http, Piece, Request, Signature, Text, Token};

/// Longest text that is shortened byte by byte.
const SHORT: usize = 120;

/// Every request that is smaller by one step, the largest steps first.
pub(super) fn smaller(request: &Request) -> Vec<Request> {
    let simple = Request::simple();
    let mut smaller = Vec::new();
    let mut with = |change: &dyn Fn(&mut Request)| {
        let mut next = request.clone();
        change(&mut next);
        if next != *request {
            smaller.push(next);
        }
    };
    for index in 0..request.headers.len() {
        with(&|next| drop(next.headers.remove(index)));
    }
    with(&|next| next.body = Body::None);
    with(&|next| next.http = Http::V11);
    with(&|next| next.method.clone_from(&simple.method));
    with(&|next| next.authority.clone_from(&simple.authority));
    if request.target.plain().len() > 1 || request.target.tokens().next().is_some() {
        with(&|next| next.target = Text::raw("/"));
        for text in shorter(&request.target) {
            with(&|next| next.target = text.clone());
        }
    }
    for (index, (_, value)) in request.headers.iter().enumerate() {
        for text in shorter(value) {
            with(&|next| next.headers[index].1 = text.clone());
        }
    }
    smaller
}

/// The text with a stretch of bytes left out, or with a simpler token.
fn shorter(text: &Text) -> Vec<Text> {
    let mut all = Vec::new();
    for (index, piece) in text.0.iter().enumerate() {
        match piece {
            Piece::Raw(raw) => {
                for raw in stretches(raw) {
                    let mut next = text.clone();
                    next.0[index] = Piece::Raw(raw);
                    all.push(next);
                }
            }
            Piece::Token(token) => {
                for token in simpler(token) {
                    let mut next = text.clone();
                    next.0[index] = Piece::Token(Box::new(token));
                    all.push(next);
                }
            }
        }
    }
    all
}

fn stretches(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut length = raw.len() / 2;
    while length > 0 {
        if length > 1 || raw.len() <= SHORT {
            let mut from = 0;
            while from < raw.len() {
                let end = (from + length).min(raw.len());
                all.push([&raw[..from], &raw[end..]].concat());
                from += length;
            }
        }
        length /= 2;
    }
    all
}

fn simpler(token: &Token) -> Vec<Token> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Token)| {
        let mut next = token.clone();
        change(&mut next);
        if next != *token {
            all.push(next);
        }
    };
    with(&|next| next.payload = None);
    with(&|next| next.header = json!({}));
    with(&|next| next.algorithm = None);
    with(&|next| next.signature = Signature::Whole);
    for name in token.claims.as_object().into_iter().flat_map(serde_json::Map::keys) {
        with(&|next| {
            next.claims.as_object_mut().map(|claims| claims.remove(name));
        });
        if token.claims[name].is_array() || token.claims[name].is_object() {
            with(&|next| next.claims[name] = Value::from("x"));
        }
    }
    all
}
