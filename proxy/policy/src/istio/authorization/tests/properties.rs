//! The engine against a plain reading of the documentation, on random policies and questions; and
//! the index's worth on ten thousand policies.
//!
//! The plain reading works on the manifest's JSON, rule by rule, with nothing shared but the types
//! of the question.

use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::{Value, json};

use super::{Facts, compile, decide, policies, policy};
use crate::{
    Verdict,
    istio::{MeshConfig, authorization::Authorization},
};

/// `exact`, `pre*`, `*suf`, `*`.
fn text(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        return !value.is_empty();
    }
    if let Some(end) = pattern.strip_prefix('*') {
        return value.ends_with(end);
    }
    if let Some(start) = pattern.strip_suffix('*') {
        return value.starts_with(start);
    }
    pattern == value
}

fn attribute(name: &str, pattern: &str, facts: &Facts) -> bool {
    let peer = facts.peer.as_ref();
    let token = facts.token.as_ref();
    match name {
        "principals" => peer.is_some_and(|peer| text(pattern, &peer.without_scheme())),
        "namespaces" => peer.is_some_and(|peer| text(pattern, &peer.namespace)),
        "serviceAccounts" => peer.is_some_and(|peer| {
            let own = format!("{}/{}", peer.namespace, peer.service_account);
            own == pattern || own == format!("datamesh/{pattern}")
        }),
        "trustDomains" => peer.is_some_and(|peer| text(pattern, &peer.trust_domain)),
        "ipBlocks" => {
            let net: ipnet::IpNet = pattern.parse().unwrap();
            net.contains(&facts.ip)
        }
        "requestPrincipals" => token.and_then(crate::RequestIdentity::principal).is_some_and(|own| {
            pattern == "*" || {
                let (issuer, subject) = pattern.rsplit_once('/').unwrap();
                let (own_issuer, own_subject) = own.rsplit_once('/').unwrap();
                text(issuer, own_issuer) && text(subject, own_subject)
            }
        }),
        "methods" => text(pattern, &facts.method),
        "paths" => text(pattern, &facts.path),
        "hosts" => text(&pattern.to_lowercase(), &facts.host.to_lowercase()),
        "ports" => pattern.parse() == Ok(facts.port),
        "connection.sni" => facts.sni.as_ref().is_some_and(|sni| text(pattern, sni)),
        "request.headers[x-tag]" => facts
            .headers
            .get_all("x-tag")
            .iter()
            .any(|value| pattern == "*" || text(pattern, value.to_str().unwrap())),
        "request.auth.claims[roles]" => claim(token.and_then(|t| t.claims.get("roles")), pattern),
        "request.auth.claims[a][b]" => {
            claim(token.and_then(|t| t.claims.get("a")).and_then(|a| a.get("b")), pattern)
        }
        "request.auth.audiences" => {
            token.is_some_and(|token| token.audiences.iter().any(|one| text(pattern, one)))
        }
        "request.auth.presenter" => {
            token.and_then(|token| token.presenter.as_deref()).is_some_and(|one| text(pattern, one))
        }
        other => panic!("{other}"),
    }
}

fn claim(value: Option<&Value>, pattern: &str) -> bool {
    match value {
        Some(Value::String(one)) => text(pattern, one),
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str().is_some_and(|one| text(pattern, one))),
        _ => false,
    }
}

const TCP_FIELDS: [&str; 7] =
    ["principals", "namespaces", "serviceAccounts", "trustDomains", "ipBlocks", "ports", "connection.sni"];

/// Every list of a rule: where it stands, its attribute, negation, values.
type List = (String, bool, Vec<String>);

fn lists(fields: &Value) -> Vec<List> {
    let fields = fields.as_object().unwrap().iter();
    fields
        .map(|(name, values)| {
            let values = values.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned());
            match name.strip_prefix("not") {
                Some(rest) => (rest[..1].to_lowercase() + &rest[1..], true, values.collect()),
                None => (name.clone(), false, values.collect()),
            }
        })
        .collect()
}

fn conditions(rule: &Value) -> Vec<List> {
    let mut out = Vec::new();
    for condition in rule["when"].as_array().into_iter().flatten() {
        for (field, negated) in [("values", false), ("notValues", true)] {
            if let Some(values) = condition[field].as_array() {
                let values = values.iter().map(|v| v.as_str().unwrap().to_owned()).collect();
                out.push((condition["key"].as_str().unwrap().to_owned(), negated, values));
            }
        }
    }
    out
}

fn clauses(rule: &Value, part: &str, inner: &str) -> Vec<Vec<List>> {
    rule[part].as_array().into_iter().flatten().map(|one| lists(&one[inner])).collect()
}

fn plain_rule(rule: &Value, action: &str, facts: &Facts) -> bool {
    let (from, to) = (clauses(rule, "from", "source"), clauses(rule, "to", "operation"));
    let when = conditions(rule);
    let http = |list: &List| !TCP_FIELDS.contains(&list.0.as_str());
    let all_lists = from.iter().chain(&to).flatten().chain(&when);
    if facts.tcp && action == "ALLOW" && all_lists.clone().any(http) {
        return false;
    }
    let holds = |list: &List| {
        (facts.tcp && http(list)) || list.2.iter().any(|value| attribute(&list.0, value, facts)) != list.1
    };
    let any =
        |clauses: &[Vec<List>]| clauses.is_empty() || clauses.iter().any(|clause| clause.iter().all(holds));
    any(&from) && any(&to) && when.iter().all(holds)
}

/// Verdict and the first matching rule by id.
fn plain(all: &[(String, Vec<Value>)], facts: &Facts) -> (Verdict, Option<String>) {
    let first = |action: &str| {
        let mut ids: Vec<String> = Vec::new();
        for (i, (of, rules)) in all.iter().enumerate() {
            for (n, rule) in rules.iter().enumerate() {
                if of == action && plain_rule(rule, action, facts) {
                    ids.push(format!("ns[datamesh]-policy[p{i}]-rule[{n}]"));
                }
            }
        }
        ids.into_iter().min()
    };
    if let Some(id) = first("DENY") {
        return (Verdict::Deny, Some(id));
    }
    if !all.iter().any(|(action, _)| action == "ALLOW") {
        return (Verdict::Allow, None);
    }
    match first("ALLOW") {
        Some(id) => (Verdict::Allow, Some(id)),
        None => (Verdict::Deny, None),
    }
}

fn manifests(all: &[(String, Vec<Value>)]) -> String {
    let objects: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(i, (action, rules))| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": format!("p{i}"), "namespace": "datamesh"},
                "spec": {"action": action, "rules": rules},
            })
            .to_string()
        })
        .collect();
    objects.join("\n---\n")
}

fn values(pool: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(prop::sample::select(pool), 1..3).prop_map(|values| json!(values))
}

fn fields(of: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = Value> {
    let field = prop::sample::select(of).prop_flat_map(|(name, pool)| {
        (Just(name), any::<bool>(), values(pool)).prop_map(|(name, negated, values)| {
            let negative = || format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
            (if negated { negative() } else { name.to_owned() }, values)
        })
    });
    prop::collection::vec(field, 1..4).prop_map(|fields| {
        let mut map: serde_json::Map<String, Value> = fields.into_iter().collect();
        if map.keys().any(|name| name.ends_with("erviceAccounts")) {
            map.retain(|name, _| !name.ends_with("rincipals") || name.contains("equest"));
            map.retain(|name, _| !name.ends_with("amespaces"));
        }
        Value::Object(map)
    })
}

const SOURCES: &[(&str, &[&str])] = &[
    ("principals", &["td/ns/a/sa/x", "td/ns/b/sa/y", "td/ns/a/*", "*/sa/x", "*", "ue/ns/a/sa/x"]),
    ("namespaces", &["a", "b", "a*", "*b", "*"]),
    ("serviceAccounts", &["a/x", "x", "b/y"]),
    ("trustDomains", &["td", "ue", "t*"]),
    ("ipBlocks", &["10.0.0.1/32", "10.0.0.0/8", "0.0.0.0/0", "11.0.0.0/8", "::/0"]),
    ("requestPrincipals", &["*", "i/s", "i/*", "*/s", "j/t", "i/s*"]),
];
const OPERATIONS: &[(&str, &[&str])] = &[
    ("methods", &["GET", "POST", "P*", "*"]),
    ("paths", &["/a", "/a/*", "*/b", "/a/b", "*", "/fhir/*", "/*"]),
    ("hosts", &["h", "H:80", "h*", "*:80", "*"]),
    ("ports", &["80", "8080", "1"]),
];
const KEYS: &[(&str, &[&str])] = &[
    ("connection.sni", &["s", "t", "*"]),
    ("request.headers[x-tag]", &["a", "b", "a*", "*"]),
    ("request.auth.claims[roles]", &["Medic", "Patient", "M*", "*"]),
    ("request.auth.claims[a][b]", &["Medic", "x"]),
    ("request.auth.audiences", &["fhir", "other"]),
    ("request.auth.presenter", &["idea", "i*"]),
];

fn condition() -> impl Strategy<Value = Value> {
    prop::sample::select(KEYS).prop_flat_map(|(key, pool)| {
        (Just(key), values(pool), values(pool), 0..3).prop_map(|(key, yes, no, kind)| match kind {
            0 => json!({"key": key, "values": yes}),
            1 => json!({"key": key, "notValues": no}),
            _ => json!({"key": key, "values": yes, "notValues": no}),
        })
    })
}

fn rule() -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(fields(SOURCES), 0..3),
        prop::collection::vec(fields(OPERATIONS), 0..3),
        prop::collection::vec(condition(), 0..3),
    )
        .prop_map(|(from, to, when)| {
            let mut rule = serde_json::Map::new();
            let wrap = |list: Vec<Value>, name: &str| -> Value {
                list.into_iter().map(|one| json!({ name: one })).collect()
            };
            if !from.is_empty() {
                rule.insert("from".to_owned(), wrap(from, "source"));
            }
            if !to.is_empty() {
                rule.insert("to".to_owned(), wrap(to, "operation"));
            }
            if !when.is_empty() {
                rule.insert("when".to_owned(), json!(when));
            }
            Value::Object(rule)
        })
}

fn mesh() -> impl Strategy<Value = Vec<(String, Vec<Value>)>> {
    let action = prop::sample::select(vec!["ALLOW", "ALLOW", "ALLOW", "DENY"]);
    let policy =
        (action, prop::collection::vec(rule(), 1..4)).prop_map(|(action, rules)| (action.to_owned(), rules));
    prop::collection::vec(policy, 0..8)
}

fn facts() -> impl Strategy<Value = Facts> {
    let pick = |pool: &'static [&'static str]| prop::sample::select(pool);
    let peer = prop::option::of(pick(&["td/ns/a/sa/x", "td/ns/b/sa/y", "ue/ns/datamesh/sa/x"]));
    let token = prop::option::of((
        pick(&["i", "j", ""]),
        pick(&["s", "t", ""]),
        prop::sample::subsequence(vec!["Medic", "Patient", "x"], 0..3),
        any::<bool>(),
    ));
    let tags = prop::sample::subsequence(vec!["a", "b", "ab", ""], 0..3);
    (
        (any::<bool>(), peer, pick(&["10.0.0.1", "10.0.0.2", "2001:db8::1", "11.1.1.1"])),
        (pick(&["GET", "POST", "PUT"]), pick(&["/a", "/a/b", "/fhir/x", "/c"]), pick(&["h", "h:80", "G"])),
        (pick(&["80", "8080"]), prop::option::of(pick(&["s", "t"])), token, tags),
    )
        .prop_map(|((tcp, peer, ip), (method, path, host), (port, sni, token, tags))| {
            let mut facts = Facts::default().method(method).path(path).host(host);
            facts.tcp = tcp;
            facts.ip = ip.parse().unwrap();
            facts.port = port.parse().unwrap();
            facts.sni = sni.map(str::to_owned);
            for tag in tags {
                facts = facts.header("x-tag", tag.as_bytes());
            }
            if let Some(peer) = peer {
                facts = facts.peer(peer);
            }
            if let Some((iss, sub, roles, listed)) = token {
                let roles = if listed { json!(roles) } else { json!(roles.first()) };
                facts = facts.token(json!({
                    "iss": iss, "sub": sub, "roles": roles, "aud": "fhir", "azp": "idea",
                    "a": {"b": roles},
                }));
            }
            facts
        })
}

/// The same in every run, unless `PROPTEST_RNG_SEED` or `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { 600 };
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(0x0046_4849_5257),
        fixed => fixed,
    };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..asked }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_engine_agrees_with_a_plain_reading(all in mesh(), asked in prop::collection::vec(facts(), 1..12)) {
        let authorization = compile(&manifests(&all));
        for facts in &asked {
            let decision = decide(&authorization, facts);
            let (verdict, rule) = plain(&all, facts);
            prop_assert_eq!(decision.verdict, verdict, "{:?}\n{}", facts, manifests(&all));
            prop_assert_eq!(decision.rule.as_deref(), rule.as_deref(), "{:?}\n{}", facts, manifests(&all));
            // Whoever is let through must not have been turned away before the first word.
            let before = Facts { tcp: true, sni: None, ..facts.clone() };
            let may = authorization.may_permit(&before.question());
            prop_assert!(may || verdict == Verdict::Deny, "{:?}\n{}", facts, manifests(&all));
        }
    }
}

/// Many policies of a shape.
fn many(count: usize, rule: impl Fn(usize) -> String) -> Authorization {
    let text: String = (0..count).map(|i| policy(&format!("p{i}"), "ALLOW", &rule(i))).collect();
    Authorization::compile(policies(&text).iter(), &MeshConfig::default())
}

#[track_caller]
fn few_are_looked_at(authorization: &Authorization, facts: &Facts) {
    let looked_at = authorization.allow.looked_at(&facts.question());
    assert!(looked_at <= 4, "{looked_at} of {} rules", authorization.allow.rules().len());
    let decision = decide(authorization, facts);
    assert_eq!(decision.verdict, Verdict::Allow);
}

#[test]
fn of_a_thousand_policies_few_are_looked_at() {
    let role = many(1000, |i| {
        format!(
            "to: [{{operation: {{methods: [GET]}}}}]\nwhen: [{{key: \"request.auth.claims[realm_access][roles]\", values: [role-{i}]}}]"
        )
    });
    let facts = Facts::default().token(json!({"realm_access": {"roles": ["x", "role-500"]}}));
    few_are_looked_at(&role, &facts);
    let path = many(1000, |i| {
        format!(
            "from: [{{source: {{requestPrincipals: ['*']}}}}]\nto: [{{operation: {{methods: [GET], paths: [/fhir/Patient/{i}/*]}}}}]"
        )
    });
    let facts = Facts::default().path("/fhir/Patient/500/x").token(json!({"iss": "i", "sub": "s"}));
    few_are_looked_at(&path, &facts);
    let peer = many(1000, |i| format!("from: [{{source: {{principals: [cluster.local/ns/n/sa/a{i}]}}}}]"));
    few_are_looked_at(&peer, &Facts::default().peer("cluster.local/ns/n/sa/a500"));
    let address =
        many(1000, |i| format!("from: [{{source: {{ipBlocks: [10.{}.{}.0/24]}}}}]", i / 256, i % 256));
    few_are_looked_at(&address, &Facts { ip: "10.1.244.7".parse().unwrap(), ..Facts::default() });
    let header = many(1000, |i| format!("when: [{{key: \"request.headers[x-{i}]\", values: [a]}}]"));
    few_are_looked_at(&header, &Facts::default().header("x-500", b"a"));
    let claim =
        many(1000, |i| format!("when: [{{key: \"request.auth.claims[r][c-{i}][roles]\", values: [a]}}]"));
    few_are_looked_at(&claim, &Facts::default().token(json!({"r": {"c-500": {"roles": ["a"]}}})));
    // Copies of one policy count once.
    let copies = many(1000, |_| "to: [{operation: {methods: [GET]}}]".to_owned());
    few_are_looked_at(&copies, &Facts::default());
}

/// The cost itself is measured by `cargo bench -p bench --bench decision`: a test that reads a clock
/// fails on a busy machine.
#[test]
fn of_ten_thousand_policies_no_more_are_looked_at_than_of_one() {
    let rule = |i: usize| {
        format!(
            "from: [{{source: {{requestPrincipals: ['*']}}}}]\nto: [{{operation: {{methods: [GET]}}}}]\nwhen: [{{key: \"request.auth.claims[realm_access][roles]\", values: [role-{i}]}}]"
        )
    };
    let all = many(10_000, rule);
    let facts = Facts::default()
        .token(json!({"iss": "i", "sub": "s", "realm_access": {"roles": ["x", "role-5000"]}}));
    assert_eq!(all.allow.looked_at(&facts.question()), 1);
    assert_eq!(decide_quietly(&all, &facts), Verdict::Allow);
    let nobody = Facts::default().token(json!({"iss": "i", "sub": "s", "realm_access": {"roles": ["x"]}}));
    assert_eq!(all.allow.looked_at(&nobody.question()), 0);
    assert_eq!(decide_quietly(&all, &nobody), Verdict::Deny);
}

/// Without the explanation of ten thousand rules.
fn decide_quietly(authorization: &Authorization, facts: &Facts) -> Verdict {
    authorization.decide(&facts.question()).verdict
}
