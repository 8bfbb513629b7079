//! Random worlds and questions.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Map, Value, json};

use super::{
    Action, Asked, Condition, HttpAsked, JwtRule, List, Member, Peer, PeerAuthentication, Policy,
    RequestAuthentication, Rule, Selection, Target, World,
    vocabulary::{KEYS, NAMESPACES, OPERATIONS, ROOT, SOURCES, is_identity},
};

/// Ports that questions are about.
pub const PORTS: [u16; 2] = [80, 8080];

/// A world of these policies at most.
pub fn world(policies: usize) -> impl Strategy<Value = World> {
    let aliases = subsequence(vec!["old", "cluster.local"], 0..=2);
    let requests = vec(request_authentication(), 0..3);
    let peers = vec(peer_authentication(), 0..5);
    (vec(policy(), 0..policies), requests, peers, aliases).prop_map(
        |(mut policies, mut requests, mut peers, aliases)| {
            for (index, policy) in policies.iter_mut().enumerate() {
                // Names sort otherwise than they are numbered: `p-10` before `p-9` and `p`.
                policy.name = if index == 0 { "p".to_owned() } else { format!("p-{index}") };
            }
            for (index, request) in requests.iter_mut().enumerate() {
                request.name = format!("r-{index}");
            }
            for (index, peer) in peers.iter_mut().enumerate() {
                peer.name = format!("m-{index}");
            }
            World { root: ROOT, trust_domain: "td", aliases, members: members(), policies, requests, peers }
        },
    )
}

/// Who is in every world: told apart by namespace and by labels, one behind a gateway of another
/// namespace, one in the root namespace.
#[must_use]
pub fn members() -> Vec<Member> {
    let member =
        |namespace, name, labels: &[(&'static str, &'static str)], services: &[&'static str]| Member {
            namespace,
            name,
            labels: labels.iter().copied().collect(),
            services: services.to_vec(),
            gateways: Vec::new(),
            classes: Vec::new(),
        };
    let mut all = vec![
        member("a", "one", &[("app", "x"), ("tier", "front")], &["s"]),
        member("a", "two", &[("app", "y")], &[]),
        member("b", "one", &[("app", "x")], &["s"]),
        member(ROOT, "gate", &[("istio", "gate")], &[]),
    ];
    all[3].gateways.push(("a", "g"));
    all[3].classes.push("c");
    all
}

fn labels() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    select(vec![
        vec![("app", "x")],
        vec![("app", "y")],
        vec![("app", "x"), ("tier", "front")],
        vec![("tier", "back")],
        vec![("istio", "gate")],
    ])
    .prop_map(|labels| labels.into_iter().collect())
}

fn selection() -> impl Strategy<Value = Selection> {
    let targets = subsequence(
        vec![Target::Service("s"), Target::Gateway("g"), Target::GatewayClass("c"), Target::Service("other")],
        1..3,
    );
    prop_oneof![
        5 => Just(Selection::All),
        3 => labels().prop_map(Selection::Labels),
        1 => targets.prop_map(Selection::Targets),
    ]
}

/// A policy without a name.
pub fn policy() -> impl Strategy<Value = Policy> {
    let action = prop_oneof![
        10 => Just(Action::Allow),
        5 => Just(Action::Deny),
        2 => Just(Action::Audit),
        1 => Just(Action::Custom),
    ];
    (select(NAMESPACES), selection(), action, prop::bool::weighted(0.1), vec(rule(), 0..4)).prop_map(
        |(namespace, selection, action, dry_run, mut rules)| {
            if rules.is_empty() && action != Action::Allow {
                rules.push(Rule::default());
            }
            if action == Action::Custom {
                rules = rules.into_iter().map(without_identities).collect();
            }
            Policy { namespace, name: String::new(), selection, action, dry_run, rules }
        },
    )
}

fn without_identities(mut rule: Rule) -> Rule {
    for clause in &mut rule.from {
        clause.retain(|list| !is_identity(list.field));
    }
    rule.from.retain(|clause| !clause.is_empty());
    rule.when.retain(|condition| !is_identity(condition.key));
    rule
}

fn rule() -> impl Strategy<Value = Rule> {
    let some = |most: usize| prop_oneof![2 => 0..=0_usize, 3 => 1..=most];
    let clauses = move |of| some(2).prop_flat_map(move |count| vec(lists(of), count));
    (clauses(SOURCES), clauses(OPERATIONS), some(2).prop_flat_map(|count| vec(condition(), count)))
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn values(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(of), 1..4)
}

fn lists(of: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = Vec<List>> {
    let list = (select(of), prop::bool::weighted(0.25)).prop_flat_map(|((field, pool), negated)| {
        values(pool).prop_map(move |values| List { field, negated, values })
    });
    let count = prop_oneof![3 => Just(1_usize), 2 => Just(2), 1 => Just(3)];
    count.prop_flat_map(move |count| vec(list.clone(), count)).prop_map(|mut lists: Vec<List>| {
        let mut seen = Vec::new();
        lists.retain(|list| {
            let new = !seen.contains(&(list.field, list.negated));
            seen.push((list.field, list.negated));
            new
        });
        if lists.iter().any(|list| list.field == "serviceAccounts") {
            lists.retain(|list| !matches!(list.field, "principals" | "namespaces"));
        }
        lists
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    (select(KEYS), 0..6_u8).prop_flat_map(|((key, pool), form)| {
        (values(pool), values(pool)).prop_map(move |(values, not_values)| match form {
            0..4 => Condition { key, values, not_values: Vec::new() },
            4 => Condition { key, values: Vec::new(), not_values },
            _ => Condition { key, values, not_values },
        })
    })
}

/// A RequestAuthentication without a name.
pub fn request_authentication() -> impl Strategy<Value = RequestAuthentication> {
    let audiences = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(vec!["fhir", "other"], 1..=2)];
    let rule = (select(vec!["https://i/r", "https://j"]), audiences)
        .prop_map(|(issuer, audiences)| JwtRule { issuer, audiences });
    (select(NAMESPACES), selection(), vec(rule, 1..3)).prop_map(|(namespace, selection, rules)| {
        RequestAuthentication { namespace, name: String::new(), selection, rules }
    })
}

/// A PeerAuthentication without a name.
pub fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    let mode = || option::weighted(0.8, select(vec!["STRICT", "PERMISSIVE", "DISABLE"]));
    let ports = prop::collection::btree_map(select(PORTS.to_vec()), mode(), 0..=2);
    let labels = prop_oneof![Just(BTreeMap::new()), labels()];
    (select(NAMESPACES), option::of(0..3_u8), labels, mode(), ports).prop_map(
        |(namespace, created, labels, mode, mut ports)| {
            if labels.is_empty() {
                ports.clear();
            }
            PeerAuthentication { namespace, name: String::new(), created, labels, mode, ports }
        },
    )
}

/// A question to any member, over HTTP mostly.
pub fn asked() -> impl Strategy<Value = Asked> {
    let peer = option::of((
        select(vec!["td", "td", "old", "cluster.local", "far"]),
        select(vec!["a", "b", "axb", "istio-system"]),
        select(vec!["x", "y", "xx"]),
    ));
    let ip = select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "11.1.1.1", "::ffff:10.0.0.1"]);
    let remote = select(vec!["203.0.113.7", "203.0.113.8", "10.9.9.9", "::1"]);
    let sni = option::of(select(vec!["s.example", "t.example", "other"]));
    let http = option::weighted(0.9, http());
    (
        0..4_usize,
        (ip, remote, peer),
        (select(vec!["10.0.0.9", "10.0.0.1"]), select(PORTS.to_vec())),
        sni,
        http,
    )
        .prop_map(|(member, (ip, remote_ip, peer), (destination_ip, port), sni, http)| Asked {
            member,
            ip: address(ip),
            remote_ip: address(remote_ip),
            peer: peer.map(|(trust_domain, namespace, account)| Peer { trust_domain, namespace, account }),
            destination_ip: address(destination_ip),
            port,
            sni,
            http,
        })
}

/// A text of ours as an address.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0; 4]))
}

/// The HTTP part of a question.
pub fn http() -> impl Strategy<Value = HttpAsked> {
    let method = select(vec!["GET", "GET", "POST", "PUT", "get"]);
    let host = select(vec!["h", "h:80", "H:80", "h.example", "x.example"]);
    let path = select(vec![
        "/fhir/Patient",
        "/fhir/Patient/1",
        "/fhir/Patient/",
        "/fhir",
        "/fhir/",
        "/",
        "/fhir/Observation/1",
        "/fhir/Patient/1/_history/1",
        "/fhir/a[b",
        "/FHIR/Patient",
        "/x/Patient/1",
        "/fhir/Patient/%41;=1",
    ]);
    let headers = subsequence(
        vec![
            ("x-tag", "a"),
            ("x-tag", "b"),
            ("x-tag", "ab"),
            ("x-tag", ""),
            ("x-tag", "ba*"),
            ("x-other", "a"),
        ],
        0..=3,
    );
    (method, host, path, headers, option::weighted(0.75, claims()))
        .prop_map(|(method, host, path, headers, claims)| HttpAsked { method, host, path, headers, claims })
}

/// Claims of a token as they are after verification: `scope` is a list.
fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let issuer = select(vec!["https://i/r", "https://i/r", "https://j", "https://i"]);
    let subject = select(vec!["s", "s", "t", "st", ""]);
    let roles = || subsequence(vec!["Medic", "Patient", "Nurse"], 0..=2);
    let presenter = select(vec![Value::Null, json!("idea"), json!("other"), json!(7)]);
    let audiences = select(vec![Value::Null, json!("fhir"), json!(["x", "fhir"]), json!(["other"])]);
    let more = select(vec![
        json!({}),
        json!({"level": 3, "scope": ["openid", "patient"]}),
        json!({"a.b": "dotted", "a": {"b": "nested"}}),
        json!({"https://x/y": ["url"], "scope": ["openid patient"], "level": "3"}),
        json!({"realm_access": "Medic", "roles": {"Medic": true}}),
        json!({"realm_access": {"roles": [""]}}),
        json!({"realm_access": {"roles": ["Medic*", 3]}}),
    ]);
    (issuer, subject, (roles(), roles(), any::<bool>()), presenter, audiences, more).prop_map(
        |(issuer, subject, (roles, realm, listed), presenter, audiences, more)| {
            let roles = if listed { json!(roles) } else { json!(roles.first()) };
            let all = json!({
                "iss": issuer, "sub": subject, "azp": presenter, "aud": audiences, "roles": roles,
                "realm_access": {"roles": realm},
            });
            let both = [all, more].into_iter().flat_map(|part| part.as_object().cloned().unwrap_or_default());
            both.filter(|(_, value)| !value.is_null() && value != "").collect()
        },
    )
}
