//! The claims that rules are filed under, as a tree of their keys.
//!
//! A token is walked along the tree, always by the shorter of the two sides: neither many claims in
//! a token nor many claims in policies make it long.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A node: the claim that ends here, and those below it.
#[derive(Debug, Clone, Default)]
pub(super) struct ClaimTree {
    seed: Option<u64>,
    below: HashMap<String, ClaimTree, ahash::RandomState>,
}

impl ClaimTree {
    /// Adds a claim by its keys; `seed` is the hash that stands for them.
    pub(super) fn add(&mut self, keys: &[String], seed: u64) {
        match keys.split_first() {
            None => self.seed = Some(seed),
            Some((first, rest)) => self.below.entry(first.clone()).or_default().add(rest, seed),
        }
    }

    /// Gives every string, or string in a list, of each claim in the tree.
    pub(super) fn ask(&self, claims: &Map<String, Value>, found: &mut impl FnMut(u64, &[u8])) {
        if self.below.len() <= claims.len() {
            for (name, node) in &self.below {
                if let Some(value) = claims.get(name) {
                    node.ask_value(value, found);
                }
            }
        } else {
            for (name, value) in claims {
                if let Some(node) = self.below.get(name) {
                    node.ask_value(value, found);
                }
            }
        }
    }

    fn ask_value(&self, value: &Value, found: &mut impl FnMut(u64, &[u8])) {
        match (value, self.seed) {
            (Value::String(text), Some(seed)) => found(seed, text.as_bytes()),
            (Value::Array(list), Some(seed)) => {
                for text in list.iter().filter_map(Value::as_str) {
                    found(seed, text.as_bytes());
                }
            }
            (Value::Object(map), _) => self.ask(map, found),
            _ => {}
        }
    }
}
