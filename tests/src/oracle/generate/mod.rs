//! Worlds and requests by dice.
//!
//! The parts come from what once went wrong somewhere: advisories about path normalisation, odd hosts, repeated
//! headers, tokens of every kind. Requests are made of the words of the world that they are for, so that rules
//! match about as often as not.

mod headers;
mod policy;
mod target;
mod token;
mod words;

use super::dice::Dice;
use super::model::{Body, Http, Request, Text, World};
use super::translate::Normalization;

pub use token::Clock;

/// A world: a mode, rules for tokens, policies.
#[must_use]
pub fn world(dice: &mut Dice, index: usize) -> World {
    let mut world = World::open(Normalization::ALL[index % Normalization::ALL.len()]);
    world.strict = dice.percent(12);
    if dice.percent(75) {
        world.authentications.push(policy::rules(dice));
        if dice.percent(12) {
            world.authentications.push(policy::rules(dice));
        }
    }
    // Some worlds are only about what is forwarded and how.
    if dice.percent(85) {
        for _ in 0..dice.between(1, 4) {
            world.policies.push(policy::policy(dice, &world.authentications));
        }
    }
    world
}

/// A request for that world.
#[must_use]
pub fn request(dice: &mut Dice, world: &World, clock: Clock) -> Request {
    let words = words::Words::of(world);
    let http = match dice.below(100) {
        0 => Http::V10,
        1..=64 => Http::V11,
        _ => Http::V2,
    };
    let mut request = Request {
        http,
        method: headers::method(dice, &words),
        target: Text::raw(target::target(dice, &words)),
        authority: headers::authority(dice, &words),
        headers: headers::headers(dice, &words),
        body: body(dice),
    };
    if http == Http::V2 && dice.percent(96) {
        // What HTTP/2 has no words for is refused by both: little is learned from it.
        request.headers.retain(|(name, _)| !headers::is_connection_specific(name));
    }
    token::place(dice, &mut request, world, clock);
    request
}

fn body(dice: &mut Dice) -> Body {
    match dice.below(20) {
        0 => Body::Length(b"{\"resourceType\":\"Patient\"}".to_vec()),
        1 => Body::Chunked(b"a=b&c".to_vec()),
        2 => Body::Length(Vec::new()),
        _ => Body::None,
    }
}
