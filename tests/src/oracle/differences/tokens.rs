//! Differences in how tokens are taken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Case, Difference};
use crate::oracle::model::{KeyName, Piece, Signature, Token};
use crate::oracle::view::{Delta, Verdict, View};

pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "`crit`, `b64`",
        here: "401",
        reason: "RFC 7515 §4.1.11: what is critical and not understood is not to be accepted",
        explains: |case, delta| {
            refused(case, delta)
                && any(case, |token| ["crit", "b64"].iter().any(|name| token.header.get(name).is_some()))
        },
    },
    Difference {
        what: "`exp` of 0, or below 1",
        here: "expired",
        reason: "Envoy takes it for none",
        explains: |case, delta| {
            refused(case, delta)
                && any(case, |token| {
                    token.claims["exp"].as_f64().is_some_and(|exp| (0.0..1.0).contains(&exp))
                })
        },
    },
    Difference {
        what: "keys of `use: enc`",
        here: "verify nothing",
        reason: "RFC 7517 §4.2",
        explains: |case, delta| {
            (refused(case, delta) || both_refuse(case, delta))
                && any(case, |token| token.key == KeyName::Encryption)
        },
    },
    Difference {
        what: "a signature or JSON that is not written as its standard says; a token nested too deeply or over 8 KiB",
        here: "401",
        reason: "RFC 7515, 8259: one token has one reading",
        explains: |case, delta| refused(case, delta) && is_sloppy(case),
    },
    Difference {
        what: "which of several faults of a token is told",
        here: "the first that is found",
        reason: "both refuse it with the same status",
        explains: both_refuse,
    },
    Difference {
        what: "a token without `kid`, an Ed25519 key among the keys",
        here: "every key that fits its algorithm is tried",
        reason: "Envoy gives up at the Ed25519 key",
        explains: |case, delta| {
            String::from_utf8_lossy(case.envoy.body()).contains("ED25519")
                && matches!(delta, Delta::Verdict(Verdict::Status(401), _))
        },
    },
    Difference {
        what: "a repeated custom token header; one issuer's token in two places at once",
        here: "401",
        reason: "two tokens are two answers to who it is",
        explains: |case, delta| {
            let repeated = ["x-tok", "x-auth"].iter().any(|name| case.request.values(name).nth(1).is_some());
            refused(case, delta) && (repeated || case.request.tokens().nth(1).is_some())
        },
    },
    Difference {
        what: "two tokens, of which one verifies for a rule that the other then fails",
        here: "stay for the next rule to look at, and go upstream where no rule is satisfied by them",
        reason: "Envoy has removed the first by then, and may find a satisfied rule's token missing",
        explains: |case, delta| {
            let several = case.request.tokens().nth(1).is_some()
                && case.world.authentications.iter().flatten().nth(1).is_some();
            let about_tokens =
                |verdict: &Verdict| matches!(verdict, Verdict::Forwarded | Verdict::Status(401 | 403));
            several
                && match delta {
                    Delta::Verdict(envoy, ours) => about_tokens(envoy) && about_tokens(ours),
                    Delta::Target(envoy, ours) => ours.len() > envoy.len(),
                    Delta::Body(..) => {
                        case.ours.verdict() == Verdict::Status(403)
                            || case.ours.verdict() == Verdict::Status(401)
                    }
                    Delta::AnswerHeader(name, ..) => name == "www-authenticate" || name.starts_with("grpc-"),
                    Delta::Header(name, envoy, _) => name == "authorization" && envoy.is_empty(),
                    _ => false,
                }
        },
    },
    Difference {
        what: "two tokens of one rule that both verify",
        here: "headers are set from the one whose claims count",
        reason: "Envoy sets them from both",
        explains: |case, delta| match delta {
            Delta::Header(_, envoy, ours) => {
                case.request.tokens().nth(1).is_some()
                    && envoy.len() > ours.len()
                    && ours.iter().all(|one| envoy.contains(one))
            }
            _ => false,
        },
    },
    Difference {
        what: "a list or an object in `outputClaimToHeaders`",
        here: "the same JSON in another spelling",
        reason: "members and numbers are written as they came",
        explains: |_, delta| match delta {
            Delta::Header(_, envoy, ours) => {
                envoy.len() == ours.len()
                    && envoy.iter().zip(ours).all(|(envoy, ours)| envoy == ours || same_json(envoy, ours))
            }
            _ => false,
        },
    },
    Difference {
        what: "a claim that no header can hold, in `outputClaimToHeaders`",
        here: "left out",
        reason: "Envoy: 503",
        explains: |case, delta| {
            String::from_utf8_lossy(case.envoy.body()).starts_with("invalid header value")
                && matches!(delta, Delta::Verdict(Verdict::Status(503), _))
        },
    },
];

fn any(case: &Case<'_>, wanted: impl Fn(&Token) -> bool) -> bool {
    case.request.tokens().any(wanted)
}

/// Whether we refuse a token that Envoy takes.
fn refused(case: &Case<'_>, delta: &Delta) -> bool {
    let grpc = matches!(case.ours, View::Answered(reply) if reply.status == 200 && reply.header("grpc-status") == Some(b"16"));
    match delta {
        Delta::Verdict(envoy, Verdict::Status(401)) => *envoy != Verdict::Dropped,
        // Of several rules, one that takes the token says no to its audience.
        Delta::Verdict(Verdict::Forwarded, Verdict::Status(403)) => case.ours_says(&["Audiences in Jwt"]),
        Delta::Verdict(_, Verdict::Status(200)) => grpc,
        Delta::AnswerHeader(name, ..) => grpc && (name.starts_with("grpc-") || name == "www-authenticate"),
        _ => false,
    }
}

fn both_refuse(case: &Case<'_>, delta: &Delta) -> bool {
    match delta {
        Delta::Body(envoy, ours) => {
            case.ours.verdict() == Verdict::Status(401) && envoy.starts_with(b"Jw") && ours.starts_with(b"Jw")
        }
        Delta::AnswerHeader(name, envoy, ours) => {
            name == "grpc-message" && envoy.concat().starts_with(b"Jw") && ours.concat().starts_with(b"Jw")
        }
        _ => false,
    }
}

fn is_sloppy(case: &Case<'_>) -> bool {
    any(case, |token| {
        token.payload.is_some()
            || matches!(token.signature, Signature::LooseBits)
            || token.header.get("x").is_some()
    }) || has_something_behind(case)
        || case.ours_says(&["Jwt is not in the form", "invalid Base64url", "invalid JSON"])
}

/// A dot or a space right behind a token, say; HTTP/1 cuts a space off, HTTP/2 does not.
fn has_something_behind(case: &Case<'_>) -> bool {
    let texts = case.request.headers.iter().map(|(_, value)| value).chain([&case.request.target]);
    let behind = |two: &[Piece]| match two {
        [Piece::Token(_), Piece::Raw(raw)] => !raw.is_empty() && !raw.starts_with(b"&"),
        _ => false,
    };
    texts.into_iter().any(|text| text.0.windows(2).any(behind))
}

fn same_json(envoy: &[u8], ours: &[u8]) -> bool {
    let read = |text: &[u8]| -> Option<Value> {
        let decoded = STANDARD.decode(text).ok()?;
        Some(doubles(serde_json::from_slice(&decoded).ok()?))
    };
    read(envoy).is_some_and(|envoy| Some(envoy) == read(ours))
}

/// Every number as a double, as Envoy keeps them.
fn doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::Array(list) => list.into_iter().map(doubles).collect(),
        Value::Object(object) => object.into_iter().map(|(name, value)| (name, doubles(value))).collect(),
        other => other,
    }
}
