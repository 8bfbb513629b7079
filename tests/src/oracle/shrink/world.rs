//! Worlds with one thing less in them. All of them are valid.

use serde_json::Value;

use crate::oracle::model::World;
use crate::oracle::translate::Normalization;

/// Every world that is smaller by one step, the largest steps first.
pub(super) fn smaller(world: &World) -> Vec<World> {
    let mut smaller = Vec::new();
    let mut with = |change: &dyn Fn(&mut World)| {
        let mut next = world.clone();
        change(&mut next);
        if next != *world {
            smaller.push(next);
        }
    };
    for index in 0..world.policies.len() {
        with(&|next| drop(next.policies.remove(index)));
    }
    for index in 0..world.authentications.len() {
        with(&|next| drop(next.authentications.remove(index)));
    }
    with(&|next| next.strict = false);
    with(&|next| next.normalization = Normalization::Base);
    for (index, rules) in world.authentications.iter().enumerate() {
        for at in 0..rules.len() {
            if rules.len() > 1 {
                with(&|next| drop(next.authentications[index].remove(at)));
            }
            for rule in without_one(&rules[at], &["issuer", "name", "header", "claim"]) {
                with(&|next| next.authentications[index][at] = rule.clone());
            }
        }
    }
    for (index, policy) in world.policies.iter().enumerate() {
        with(&|next| next.policies[index].root = false);
        with(&|next| next.policies[index].dry_run = false);
        for spec in without_one(&policy.spec, &["action", "rules", "operation", "source", "key"]) {
            with(&|next| next.policies[index].spec = spec.clone());
        }
    }
    smaller
}

/// A tree without one of its members or elements. A list keeps one element, and an object keeps the members that it
/// cannot be without; where only one other is left, that stays too.
fn without_one(tree: &Value, needed: &[&str]) -> Vec<Value> {
    let mut all = Vec::new();
    match tree {
        Value::Object(object) => {
            let is_free = |name: &str| !needed.contains(&name);
            // A condition needs values, an operation something that it asks for.
            let free = object.keys().filter(|name| is_free(name)).count();
            let keeps_one = object.contains_key("key") || object.keys().all(|name| is_value_list(name));
            for name in object.keys() {
                if is_free(name) && !(keeps_one && free == 1) {
                    let mut next = object.clone();
                    next.remove(name);
                    all.push(Value::Object(next));
                }
            }
            for (name, value) in object {
                for smaller in without_one(value, needed) {
                    let mut next = object.clone();
                    next.insert(name.clone(), smaller);
                    all.push(Value::Object(next));
                }
            }
        }
        Value::Array(list) => {
            for index in 0..list.len() {
                if list.len() > 1 {
                    let mut next = list.clone();
                    next.remove(index);
                    all.push(Value::Array(next));
                }
            }
            for (index, value) in list.iter().enumerate() {
                for smaller in without_one(value, needed) {
                    let mut next = list.clone();
                    next[index] = smaller;
                    all.push(Value::Array(next));
                }
            }
        }
        _ => {}
    }
    all
}

/// Fields of operations and sources, labels, and the parts of a place of tokens.
fn is_value_list(name: &str) -> bool {
    let name = name.strip_prefix("not").unwrap_or(name).to_ascii_lowercase();
    matches!(
        name.as_str(),
        "paths"
            | "methods"
            | "hosts"
            | "ports"
            | "requestprincipals"
            | "principals"
            | "namespaces"
            | "ipblocks"
            | "remoteipblocks"
            | "app"
            | "name"
            | "header"
            | "claim"
    )
}
