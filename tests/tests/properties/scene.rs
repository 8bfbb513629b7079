//! A random world with requests over the wire, as a PolicyTest file, as settings of a running proxy
//! and as questions to the second evaluator.

use std::net::IpAddr;

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};
use tests::naive::{self, Asked, Credentials, HttpAsked, Mode, Peer, Presented, World, print, strategies};

use super::token::{Quality, Signer, verified};

/// Where requests come from: the machine itself, in plaintext, as in a live run.
pub const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A world and what is asked of it.
pub struct Scene {
    pub world: World,
    pub requests: Vec<Request>,
    /// The world's manifests.
    pub manifests: String,
}

/// One request to a member.
#[derive(Debug, Clone)]
pub struct Request {
    pub member: usize,
    pub port: u16,
    /// A member that calls over mTLS; nobody: the machine itself, in plaintext.
    pub from: Option<usize>,
    pub http: HttpAsked,
    /// `X-Forwarded-For`
    pub forwarded_for: Option<&'static str>,
    pub quality: Quality,
    /// The token, if there are claims.
    pub token: Option<String>,
}

/// What comes of a request, whoever is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No answer.
    Dropped,
    /// This status, and the body of a refusal.
    Status(u16, Option<String>),
}

impl Scene {
    /// The scene of that number: the same in every run. `live`: all calls come from the machine.
    pub fn new(number: u64, requests: usize, live: bool, signer: &Signer) -> Self {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        let mut runner =
            TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let strategy = (strategies::world(14), vec(request(), requests));
        let (mut world, mut requests) = strategy.new_tree(&mut runner).unwrap().current();
        for member in &mut world.members {
            // Gateways of the Gateway API are no part of these manifests.
            member.gateways.clear();
            member.classes.clear();
        }
        for request in &mut requests {
            request.from = request.from.filter(|_| !live);
            let claims = request.http.claims.as_ref();
            request.token = claims.map(|claims| signer.sign(claims, request.quality));
        }
        let jwks = signer.jwks();
        let mut objects: Vec<Value> = world.policies.iter().map(print::policy).collect();
        objects.extend(world.requests.iter().map(|one| print::request(one, &jwks)));
        objects.extend(world.peers.iter().map(print::peer));
        for (namespace, labels) in [("a", json!({"app": "x", "tier": "front"})), ("b", json!({"app": "x"}))] {
            objects.push(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": namespace},
                "spec": {"selector": labels, "ports": [{"port": 80}]},
            }));
        }
        let manifests = print::documents(&objects, &print::HANDS);
        Self { world, requests, manifests }
    }

    /// The members as both kinds of file describe them.
    pub fn workloads(&self) -> Vec<Value> {
        let workload = |(index, member): (usize, &naive::Member)| {
            json!({
                "name": format!("{}/{}", member.namespace, member.name), "labels": member.labels,
                "ip": member_ip(index).to_string(), "serviceAccount": account(index),
                "ports": {"http": 80, "alt": 8080}, "enrolled": true,
            })
        };
        self.world.members.iter().enumerate().map(workload).collect()
    }

    /// The PolicyTest file, in JSON, which is YAML too.
    pub fn policy_test(&self) -> String {
        let case = |(index, request): (usize, &Request)| {
            let name = |index: usize| {
                let member = &self.world.members[index];
                format!("{}/{}", member.namespace, member.name)
            };
            let mut headers = Map::new();
            for (name, value) in request.headers() {
                match headers.get_mut(name) {
                    None => {
                        headers.insert(name.to_owned(), json!([value]));
                    }
                    Some(values) => values.as_array_mut().unwrap().push(json!(value)),
                }
            }
            let from =
                request.from.map_or_else(|| json!({"ip": LOOPBACK.to_string()}), |from| json!(name(from)));
            json!({
                "name": format!("case-{index}"), "from": from, "mtls": request.from.is_some(),
                "to": name(request.member), "port": request.port,
                "request": {
                    "method": request.http.method, "path": request.http.path, "headers": headers,
                    "token": request.token.as_deref().unwrap_or("none"),
                },
            })
        };
        let cases: Vec<Value> = self.requests.iter().enumerate().map(case).collect();
        json!({
            "apiVersion": "fhirward.dev/v1alpha1", "kind": "PolicyTest", "metadata": {"name": "scene"},
            "inline": self.manifests, "workloads": self.workloads(),
            "settings": {"trustDomain": self.world.trust_domain, "trustDomainAliases": self.world.aliases},
            "cases": cases,
        })
        .to_string()
    }

    /// What the documentation wants.
    pub fn wanted(&self, request: &Request) -> Outcome {
        let world = &self.world;
        let member = &world.members[request.member];
        if naive::mode(world, member, request.port) == Mode::Strict && request.from.is_none() {
            return Outcome::Dropped;
        }
        let audiences = request.audiences();
        let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let issuer = request.http.claims.as_ref().and_then(|claims| claims.get("iss")?.as_str());
        let presented = issuer.map(|issuer| Presented {
            issuer,
            audiences: &audiences,
            current: request.quality != Quality::Expired,
            signed: request.quality != Quality::Forged,
        });
        let refusal = |status, body: &str| Outcome::Status(status, Some(body.to_owned()));
        let claims = match naive::authenticate(world, member, presented) {
            Credentials::Nobody => None,
            Credentials::Somebody => request.http.claims.as_ref().map(verified),
            // The words of a bad token depend on what is wrong with it: not compared here.
            Credentials::Refused => return Outcome::Status(401, None),
            Credentials::WrongAudience => return refusal(403, "Audiences in Jwt are not allowed"),
        };
        let asked = Asked {
            member: request.member,
            ip: request.from.map_or(LOOPBACK, member_ip),
            remote_ip: request.forwarded_for.map_or(request.from.map_or(LOOPBACK, member_ip), |text| {
                text.rsplit(',').next().unwrap_or("").trim().parse().unwrap()
            }),
            peer: request.from.map(|from| Peer {
                trust_domain: world.trust_domain,
                namespace: world.members[from].namespace,
                account: account(from),
            }),
            destination_ip: member_ip(request.member),
            port: request.port,
            sni: None,
            http: Some(HttpAsked { claims, ..request.http.clone() }),
        };
        if naive::decide(world, &asked).allowed {
            Outcome::Status(200, None)
        } else {
            refusal(403, "RBAC: access denied")
        }
    }
}

impl Request {
    /// Every header but the token's.
    pub fn headers(&self) -> Vec<(&'static str, &'static str)> {
        let mut all = vec![("host", self.http.host)];
        all.extend(&self.http.headers);
        all.extend(self.forwarded_for.map(|value| ("x-forwarded-for", value)));
        all
    }

    fn audiences(&self) -> Vec<String> {
        let text = |one: &Value| one.as_str().map(str::to_owned);
        match self.http.claims.as_ref().and_then(|claims| claims.get("aud")) {
            Some(Value::Array(list)) => list.iter().filter_map(text).collect(),
            Some(one) => text(one).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

fn member_ip(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 8 + u8::try_from(index).unwrap()])
}

fn account(index: usize) -> &'static str {
    ["x", "y", "y", "x"][index]
}

/// What a client can send over HTTP/1.1 and no target rule refuses or rewrites.
fn request() -> impl Strategy<Value = Request> {
    let method = select(vec!["GET", "GET", "POST", "PUT"]);
    let path = select(vec![
        "/fhir/Patient",
        "/fhir/Patient/1",
        "/fhir/Patient/",
        "/fhir",
        "/fhir/",
        "/",
        "/fhir/Observation/1",
        "/fhir/Patient/1/_history/1",
        "/x/Patient/1",
    ]);
    let scope = option::of(select(vec!["openid", "openid patient"]));
    let http = (strategies::http(), method, path, scope).prop_map(|(http, method, path, scope)| {
        let claims = http.claims.map(|mut claims| {
            if let Some(scope) = scope {
                claims.insert("scope".to_owned(), json!(scope));
            }
            claims
        });
        HttpAsked { method, path, claims, ..http }
    });
    let quality = prop_oneof![
        8 => Just(Quality::Valid),
        1 => Just(Quality::Expired),
        1 => Just(Quality::Forged),
    ];
    let forwarded = option::of(select(vec!["203.0.113.7", "10.9.9.9, 203.0.113.8", "::1"]));
    (0..4_usize, select(strategies::PORTS.to_vec()), option::of(0..4_usize), http, forwarded, quality)
        .prop_map(|(member, port, from, http, forwarded_for, quality)| Request {
            member,
            port,
            from,
            http,
            forwarded_for,
            quality,
            token: None,
        })
}
