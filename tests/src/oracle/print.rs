//! A disagreement as a PolicyTest case, and as raw bytes.

use serde_json::{Map, Value, json};

use super::generate::Clock;
use super::model::{
    Body, Http, ISSUERS, KeyName, PORT, ROOT, Request, Signature, Signed, Text, Token, World,
};
use super::run::Disagreement;
use super::view::{Verdict, View};

/// The namespace of the printed world.
const NAME: &str = "t";

/// A PolicyTest file whose one case expects what Envoy did, with the request's bytes in a comment.
#[must_use]
pub fn policy_test(found: &Disagreement, signed: &Signed<'_>, Clock(now): Clock) -> String {
    let Disagreement { world, request, envoy, ours, deltas } = found;
    let plain = request.tokens().all(is_plain) && request.tokens().count() < 2;
    let keys = |issuer: &str| match plain {
        true => vec![("jwksUri", Value::from(format!("{issuer}/certs")))],
        false => vec![("jwks", Value::from(signed.ring().jwks(issuer)))],
    };
    let manifests: Vec<String> = world.manifests(NAME, keys).iter().map(|one| format!("  {one}\n")).collect();
    let workload = json!({
        "name": format!("{NAME}/fhir"), "labels": World::labels(NAME), "enrolled": true, "ip": "127.1.0.1",
    });
    let now = jiff::Timestamp::from_second(now).unwrap_or_default();
    let settings = json!({
        "pathNormalization": world.normalization.name(), "strictTarget": world.strict, "rootNamespace": ROOT,
        "now": now.to_string(),
    });
    let case = json!({
        "name": format!("{} {}", method(request), lossy(&request.target.plain())),
        "from": {"ip": "127.0.0.1"},
        "to": format!("{NAME}/fhir"),
        "port": PORT,
        "request": asked(request, plain, signed),
        "expect": expected(envoy),
    });
    let bytes = match request.http {
        Http::V2 => request
            .http2(signed)
            .iter()
            .map(|(name, value)| [name.as_slice(), b": ", value, b"\n"].concat())
            .collect::<Vec<_>>()
            .concat(),
        _ => request.http1(signed),
    };
    let raw: String =
        bytes.split(|byte| *byte == b'\n').map(|line| format!("# {}\n", line.escape_ascii())).collect();
    format!(
        "# Envoy: {:?}. Here: {:?}.\n# {deltas:?}\n# {:?}, byte for byte:\n{raw}apiVersion: fhirward.dev/v1alpha1\nkind: PolicyTest\nmetadata: {{name: found-by-the-oracle}}\n\
         inline: |\n{}workloads:\n- {workload}\nsettings: {settings}\ncases:\n- {case}\n",
        envoy.verdict(),
        ours.verdict(),
        request.http,
        manifests.join("  ---\n"),
    )
}

/// Whether the run's own key can stand in for the token's.
fn is_plain(token: &Token) -> bool {
    matches!((token.key, token.claims["iss"].as_str()), (KeyName::A, Some(iss)) if iss == ISSUERS[0])
        && token.algorithm.is_none()
        && token.header == json!({})
        && token.payload.is_none()
        && token.signature == Signature::Whole
}

fn asked(request: &Request, plain: bool, signed: &Signed<'_>) -> Value {
    let text = |value: &Text| match plain {
        true => {
            let shown = value.0.iter().map(|piece| match piece {
                super::model::Piece::Raw(raw) => lossy(raw),
                super::model::Piece::Token(_) => "{{token}}".to_owned(),
            });
            shown.collect::<String>()
        }
        false => lossy(&value.bytes(signed)),
    };
    let mut headers: Map<String, Value> = Map::new();
    if let Some(host) = &request.authority {
        headers.insert("host".to_owned(), json!([lossy(host)]));
    }
    for (name, value) in &request.headers {
        let list = headers.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(text(value).into());
        }
    }
    let mut asked = json!({
        "method": method(request),
        "path": text(&request.target),
        "headers": headers,
        "http": if request.http == Http::V2 { "2" } else { "1.1" },
    });
    if let Body::Length(body) | Body::Chunked(body) = &request.body {
        asked["body"] = lossy(body).into();
    }
    if let Some(token) = request.tokens().next().filter(|_| plain) {
        asked["claims"] = token.claims.clone();
    }
    asked
}

fn expected(envoy: &View) -> Value {
    match (envoy, envoy.verdict()) {
        (View::Forwarded(recorded, _), _) => {
            json!({"verdict": "allow", "forwarded": {"method": recorded.method, "path": recorded.target}})
        }
        (_, Verdict::Status(status)) => {
            let mut expected = json!({"verdict": "deny", "status": status});
            if matches!(status, 401 | 403) && !envoy.body().is_empty() {
                expected["body"] = lossy(envoy.body()).into();
            }
            expected
        }
        _ => json!({"verdict": "deny"}),
    }
}

fn method(request: &Request) -> String {
    lossy(&request.method)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
