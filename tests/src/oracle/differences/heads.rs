//! Differences in how a request is read and sent on.

use std::collections::BTreeSet;

use super::{Case, Difference};
use crate::oracle::model::{Http, Request};
use crate::oracle::translate::Normalization;
use crate::oracle::view::{Delta, Verdict, View};

pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "`server`, `x-envoy-upstream-service-time`",
        here: "not added to answers",
        reason: "nobody needs to know",
        explains: |_, delta| {
            matches!(delta, Delta::AnswerHeader(name, _, ours)
                if ours.is_empty() && matches!(name.as_str(), "server" | "x-envoy-upstream-service-time"))
        },
    },
    Difference {
        what: "the words of a 400 or a 426, and of a gRPC answer to HEAD",
        here: "say what is wrong, or none",
        reason: "Envoy says `Bad Request`, or nothing",
        explains: |case, delta| match delta {
            Delta::Body(..) => matches!(case.ours.verdict(), Verdict::Status(400 | 426)),
            Delta::AnswerHeader(name, ..) if name == "content-type" => {
                matches!(case.ours.verdict(), Verdict::Status(400 | 426))
            }
            Delta::AnswerHeader(name, envoy, _) if name == "grpc-message" => envoy.is_empty(),
            _ => false,
        },
    },
    Difference {
        what: "a malformed request of a gRPC client",
        here: "is told so in gRPC",
        reason: "it understands nothing else (Envoy: 400)",
        explains: |case, delta| {
            let grpc =
                matches!(case.ours, View::Answered(reply) if reply.header("grpc-status") == Some(b"13"));
            grpc && matches!(delta, Delta::Verdict(Verdict::Status(400), Verdict::Status(200)))
        },
    },
    Difference {
        what: "white space or control characters in or around a target",
        here: "400",
        reason: "RFC 9112 §3.2 (Envoy cuts some of it off)",
        explains: |case, delta| {
            case.request.target.plain().iter().any(|byte| *byte <= b' ') && case.refused_here(delta)
        },
    },
    Difference {
        what: "what stands behind a `#` in a target",
        here: "cut off unseen, over HTTP/2 even where nothing stands before it",
        reason: "the HTTP library does so; no upstream sees it (Envoy: 400 where it is not ASCII, a reset for `:path: #x`)",
        explains: |case, delta| {
            let plain = case.request.target.plain();
            let hidden = |at: usize| at == 0 || !plain[at..].iter().all(u8::is_ascii_graphic);
            plain.iter().position(|byte| *byte == b'#').is_some_and(hidden)
                && matches!(delta, Delta::Verdict(Verdict::Status(400) | Verdict::Dropped, _))
        },
    },
    Difference {
        what: "an empty crumb of a cookie over HTTP/2",
        here: "adds nothing",
        reason: "it says nothing (Envoy leaves a `;` where it is last)",
        explains: |case, delta| {
            let empty = case.request.values("cookie").any(|value| value.plain().is_empty());
            let decided = matches!(
                delta,
                Delta::Verdict(
                    Verdict::Forwarded | Verdict::Status(403),
                    Verdict::Forwarded | Verdict::Status(403)
                )
            );
            let cookie = matches!(delta, Delta::Header(name, ..) if name == "cookie");
            case.request.http == Http::V2 && empty && (cookie || decided)
        },
    },
    Difference {
        what: "QUERY without a `content-type`",
        here: "forwarded as any other method",
        reason: "policy decides (Envoy: 400)",
        explains: |case, delta| {
            case.request.method == b"QUERY" && matches!(delta, Delta::Verdict(Verdict::Status(400), _))
        },
    },
    Difference {
        what: "an empty `X-Forwarded-Proto`",
        here: "passed on",
        reason: "it means nothing here (Envoy: 404)",
        explains: |case, delta| {
            let empty = case.request.values("x-forwarded-proto").any(|value| value.plain().is_empty());
            empty
                && match delta {
                    Delta::Verdict(envoy, _) => *envoy == Verdict::Status(404),
                    Delta::AnswerHeader(name, ..) => name.starts_with("grpc-") || name == "www-authenticate",
                    _ => false,
                }
        },
    },
    Difference {
        what: "a target that does not begin with a slash",
        here: "400",
        reason: "RFC 9112 §3.2 (Envoy: 404 for some)",
        explains: |case, delta| {
            !case.request.target.plain().starts_with(b"/")
                && case.refused_here(delta)
                && matches!(delta, Delta::Verdict(Verdict::Status(404 | 403 | 401), _))
        },
    },
    Difference {
        what: "`te: trailers` upstream",
        here: "with `connection: te`",
        reason: "RFC 9110 §10.1.4",
        explains: |_, delta| {
            matches!(delta, Delta::Header(name, envoy, ours)
                if name == "connection" && envoy.is_empty() && ours.concat() == b"te")
        },
    },
    Difference {
        what: "a malformed head over HTTP/2",
        here: "the stream is reset or answered with 400",
        reason: "Envoy does the other of the two",
        explains: |_, delta| {
            matches!(
                delta,
                Delta::Verdict(Verdict::Status(400), Verdict::Dropped)
                    | Delta::Verdict(Verdict::Dropped, Verdict::Status(400))
            )
        },
    },
    Difference {
        what: "HTTP/1.0",
        here: "served",
        reason: "old monitors speak it (Envoy: 426)",
        explains: |case, delta| {
            case.request.http == Http::V10 && matches!(delta, Delta::Verdict(Verdict::Status(426), _))
        },
    },
    Difference {
        what: "TRACE, CONNECT",
        here: "405",
        reason: "TRACE echoes credentials, and nothing is tunnelled but by [HBONE](#hbone)",
        explains: |case, delta| {
            matches!(case.request.method.as_slice(), b"TRACE" | b"CONNECT") && case.refused_with(delta, 405)
        },
    },
    Difference {
        what: "`Expect` other than `100-continue`",
        here: "417",
        reason: "RFC 9110 §10.1.1 allows it, and no other is known",
        explains: |case, delta| {
            let other =
                |value: &crate::oracle::model::Text| !value.plain().eq_ignore_ascii_case(b"100-continue");
            case.request.values("expect").any(other) && case.refused_with(delta, 417)
        },
    },
    Difference {
        what: "several Host headers; a Host that is no `name[:port]`, with user information say; an absolute-form target or \
               `:authority` that disagrees with Host",
        here: "400",
        reason: "upstream may read another host than the policy did",
        explains: |case, delta| {
            // Where the two agree but for a default port or letter case, Host is what goes on.
            let kept = matches!(delta, Delta::Header(name, ..) if name == "host");
            has_odd_host(case.request) && (kept || case.refused_here(delta))
        },
    },
    Difference {
        what: "raw `<`, `>`, backtick in a path; those and `\"` in a query; over HTTP/2 bytes that are not UTF-8",
        here: "400, or the stream is reset, in every mode",
        reason: "the HTTP library refuses them",
        explains: |case, delta| has_refused_bytes(case.request) && case.refused_here(delta),
    },
    Difference {
        what: "`strictTarget` (on unless a workload says otherwise): `;params`, encoded slashes, backslashes, NUL, double encoding, \
               malformed escapes, method-override headers",
        here: "400",
        reason: "servers read them differently (CVE-2026-73553)",
        explains: |case, delta| {
            case.world.strict
                && is_suspicious(case.request, case.world.normalization)
                && case.refused_here(delta)
        },
    },
    Difference {
        what: "`Connection` that names `host`, `authorization`, `cookie`, `content-type` or `content-length`",
        here: "400",
        reason: "without it the message is another one",
        explains: |case, delta| {
            let names = |value: &crate::oracle::model::Text| {
                matches!(value.plain().as_slice(), b"host" | b"content-type")
            };
            case.request.values("connection").any(names) && case.refused_here(delta)
        },
    },
    Difference {
        what: "`Upgrade` other than `websocket`, or with another method than GET",
        here: "ignored",
        reason: "RFC 9110 §7.8 lets a server, and RFC 6455 §4.1 wants GET",
        explains: |case, delta| {
            let other = |value: &crate::oracle::model::Text| value.plain() != b"websocket";
            let upgrade = case.request.values("upgrade").any(other)
                || (case.request.values("upgrade").next().is_some() && case.request.method != b"GET");
            upgrade
                && match delta {
                    Delta::Verdict(envoy, ours) => {
                        *envoy == Verdict::Status(403) || *ours == Verdict::Status(200)
                    }
                    Delta::AnswerHeader(name, ..) => name.starts_with("grpc-") || name == "www-authenticate",
                    Delta::Header(name, ..) => {
                        matches!(name.as_str(), "connection" | "upgrade" | "content-length")
                    }
                    _ => false,
                }
        },
    },
    Difference {
        what: "`x-envoy-*` from a caller without a mesh identity",
        here: "removed, and not believed",
        reason: "they are said between proxies",
        explains: |case, delta| match delta {
            Delta::Header(name, _, ours) => ours.is_empty() && name.starts_with("x-envoy-"),
            Delta::AnswerHeader(name, ..) => {
                name == "www-authenticate" && case.request.values("x-envoy-original-path").next().is_some()
            }
            _ => false,
        },
    },
    Difference {
        what: "a `Referer` that is no URL",
        here: "kept, and matched as any other header",
        reason: "what a rule asks for is what is looked at (Envoy removes it first)",
        explains: |case, delta| match delta {
            Delta::Header(name, envoy, _) => name == "referer" && envoy.is_empty(),
            Delta::Verdict(..) => asks_for_referer(case) && case.request.values("referer").next().is_some(),
            _ => false,
        },
    },
    Difference {
        what: "`::ffff:a.b.c.d` in `X-Forwarded-For` or in a policy",
        here: "is a.b.c.d",
        reason: "it is the same host",
        explains: |case, delta| {
            let mapped = |value: &crate::oracle::model::Text| value.plain().starts_with(b"::ffff:");
            let asked = case.world.policies.iter().any(|policy| policy.spec.to_string().contains("::ffff:"));
            matches!(
                delta,
                Delta::Verdict(
                    Verdict::Status(403) | Verdict::Forwarded,
                    Verdict::Status(403) | Verdict::Forwarded
                )
            ) && (asked || case.request.values("x-forwarded-for").any(mapped))
        },
    },
    Difference {
        what: "gRPC that is permitted",
        here: "goes upstream in HTTP/2",
        reason: "gRPC knows nothing else (Envoy: as it came)",
        explains: |case, delta| {
            let unreachable =
                matches!(case.ours, View::Answered(reply) if reply.header("grpc-status") == Some(b"14"));
            let told = matches!(delta, Delta::AnswerHeader(name, ..) if name.starts_with("grpc-"));
            unreachable && (told || matches!(delta, Delta::Verdict(Verdict::Forwarded, Verdict::Status(200))))
        },
    },
    Difference {
        what: "the rest of a query from which a token parameter is removed",
        here: "stays as it was",
        reason: "Envoy sorts it and decodes it",
        explains: |_, delta| matches!(delta, Delta::Target(envoy, ours) if same_but_for_query_form(envoy, ours)),
    },
    Difference {
        what: "`\"`, `\\` and bytes beyond ASCII in the realm of `www-authenticate`",
        here: "`%22`, `%5C`, `?`",
        reason: "they would end the quoted text, or let it run on",
        explains: |_, delta| match delta {
            Delta::AnswerHeader(name, envoy, ours) if name == "www-authenticate" => {
                let text =
                    |values: &[Vec<u8>]| values.concat().iter().copied().map(char::from).collect::<String>();
                let (envoy, ours) = (text(envoy), text(ours));
                let inside = |text: &str| {
                    text.strip_prefix("Bearer realm=\"")?.rsplit_once('"').map(|(realm, _)| realm.to_owned())
                };
                let inner = envoy.split(", error=").next().and_then(inside);
                let our_inner = ours.split(", error=").next().and_then(inside);
                inner.map(|realm| plain_realm(&realm)) == our_inner.map(|realm| plain_realm(&realm))
            }
            _ => false,
        },
    },
];

fn plain_realm(realm: &str) -> String {
    let plain = |character: char| match character {
        '"' => "%22".to_owned(),
        '\\' => "%5C".to_owned(),
        ' '..='~' => character.to_string(),
        _ => "?".to_owned(),
    };
    let text: String = realm.chars().map(plain).collect();
    // A character of several bytes is one `?` here.
    let mut short = text.replace("??", "?");
    while short.contains("??") {
        short = short.replace("??", "?");
    }
    short
}

fn has_odd_host(request: &Request) -> bool {
    let fine = |host: &[u8]| {
        let text = String::from_utf8_lossy(host).into_owned();
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name.to_owned(), port.parse::<u16>().is_ok()),
            _ => (text, true),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let bracketed = name.starts_with('[') && name.ends_with(']');
        port && !name.is_empty() && (name.bytes().all(plain) || bracketed)
    };
    let target = request.target.plain();
    request.values("host").next().is_some()
        || !request.authority.as_deref().is_some_and(fine)
        || target.windows(3).position(|three| three == b"://").is_some_and(|at| at < 6)
}

fn has_refused_bytes(request: &Request) -> bool {
    let (path, query) = request.path_and_query();
    // A fragment is cut off only after the whole target was read.
    let whole = request.target.plain();
    let any = |bytes: &[u8], of: &[u8]| bytes.iter().any(|byte| of.contains(byte));
    any(&path, b"<>`")
        || query.is_some_and(|query| any(&query, b"<>`\""))
        || (request.http == Http::V2 && std::str::from_utf8(&whole).is_err())
}

/// What a strict workload may refuse.
fn is_suspicious(request: &Request, mode: Normalization) -> bool {
    let (path, query) = request.path_and_query();
    let overrides = ["x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];
    path.iter().any(|byte| matches!(byte, b';' | b'\\' | b'%') || *byte >= 0x80)
        || (mode == Normalization::None && path.contains(&b'.'))
        || query.is_some_and(|query| query.windows(7).any(|seven| seven == b"_method"))
        || overrides.iter().any(|name| request.values(name).next().is_some())
}

fn asks_for_referer(case: &Case<'_>) -> bool {
    case.world.policies.iter().any(|policy| policy.spec.to_string().contains("request.headers[referer]"))
}

fn same_but_for_query_form(envoy: &str, ours: &str) -> bool {
    let split = |target: &str| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs: BTreeSet<(Vec<u8>, Vec<u8>)> = query.split('&').map(pair).collect();
        let pairs: BTreeSet<_> =
            pairs.into_iter().filter(|(name, value)| !(name.is_empty() && value.is_empty())).collect();
        (path.to_owned(), pairs)
    };
    split(envoy) == split(ours)
}

fn pair(text: &str) -> (Vec<u8>, Vec<u8>) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    // Twice, as Envoy does not encode again what it has decoded.
    let bytes = |text: &str| {
        text.chars().map(|one| u8::try_from(u32::from(one)).unwrap_or(b'?')).collect::<Vec<u8>>()
    };
    (decoded(&decoded(&bytes(name))), decoded(&decoded(&bytes(value))))
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match code {
            Some(code) if *first == b'%' => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}
