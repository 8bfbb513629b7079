//! The engine's side: manifests read and compiled, questions put to it.

use http::{HeaderMap, HeaderName, HeaderValue};
use policy::{
    Decision, Destination, Problem, Question, RequestFacts, RequestIdentity, Source, SpiffeId, Verdict,
    WorkloadName,
    istio::{MeshConfig, Policies, WorkloadFacts, WorkloadPolicy},
};
use serde_json::Value;
use tests::naive::{Answer, Asked, DryRun, Member, World, print};

/// A world as the engine has it: what holds for each member.
pub struct Compiled(Vec<WorkloadPolicy>);

impl Compiled {
    /// The world's manifests, written in every hand.
    pub fn of(world: &World) -> Self {
        Self::read(&print::documents(&print::objects(world), &print::HANDS), world)
    }

    /// Other manifests for the same members.
    pub fn read(text: &str, world: &World) -> Self {
        let (objects, problems) = policy::manifest::parse("world.yaml", text);
        assert_eq!(problems, [], "{text}");
        let (policies, problems) = Policies::read(&objects);
        assert!(!problems.iter().any(Problem::is_error), "{problems:#?}\n{text}");
        let mesh = mesh(world);
        Self(world.members.iter().map(|member| policies.compile(&mesh, &facts(member))).collect())
    }

    /// What holds for a member.
    pub fn member(&self, index: usize) -> &WorkloadPolicy {
        &self.0[index]
    }

    /// Decides.
    pub fn decide(&self, asked: &Asked) -> Decision {
        put(asked, |question| self.0[asked.member].decide(question))
    }

    /// Decides, and holds the explanation to it.
    pub fn decide_and_explain(&self, asked: &Asked) -> Decision {
        put(asked, |question| {
            let decision = self.0[asked.member].decide(question);
            let (explained, steps) = self.0[asked.member].explain(question);
            assert_eq!(decision, explained, "{steps:#?}");
            if let Some(rule) = &decision.rule {
                let named =
                    |step: &policy::Step| step.subject == **rule && step.outcome == policy::Outcome::Matched;
                assert!(steps.iter().any(named), "{rule} is not told as matched: {steps:#?}");
            }
            decision
        })
    }
}

/// The mesh's settings.
pub fn mesh(world: &World) -> MeshConfig {
    MeshConfig {
        trust_domain: world.trust_domain.to_owned(),
        trust_domain_aliases: world.aliases.iter().map(|one| (*one).to_owned()).collect(),
        root_namespace: world.root.to_owned(),
        ..MeshConfig::default()
    }
}

fn facts(member: &Member) -> WorkloadFacts {
    let name = |namespace: &str, name: &str| WorkloadName { namespace: namespace.into(), name: name.into() };
    let strings = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    WorkloadFacts {
        name: name(member.namespace, member.name),
        labels: member.labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        services: strings(&member.services),
        gateways: member.gateways.iter().map(|gateway| name(gateway.0, gateway.1)).collect(),
        gateway_classes: strings(&member.classes),
    }
}

/// Puts a question.
fn put<T>(asked: &Asked, ask: impl FnOnce(&Question<'_>) -> T) -> T {
    let peer = asked.peer.as_ref().map(|peer| SpiffeId {
        trust_domain: peer.trust_domain.to_owned(),
        namespace: peer.namespace.to_owned(),
        service_account: peer.account.to_owned(),
    });
    let mut headers = HeaderMap::new();
    let sent = asked.http.iter().flat_map(|http| &http.headers);
    for (name, value) in sent {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let identity = asked.http.as_ref().and_then(|http| http.claims.as_ref()).map(identity);
    ask(&Question {
        source: Source { ip: asked.ip, remote_ip: asked.remote_ip, identity: peer.as_ref() },
        destination: Destination { ip: asked.destination_ip, port: asked.port, sni: asked.sni },
        request: asked.http.as_ref().map(|http| RequestFacts {
            method: http.method,
            host: http.host,
            path: http.path,
            headers: &headers,
            identity: identity.as_ref(),
        }),
    })
}

/// Claims as the identify room hands them over.
fn identity(claims: &serde_json::Map<String, Value>) -> RequestIdentity {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let audiences = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => text("aud").into_iter().collect(),
    };
    RequestIdentity {
        issuer: text("iss").unwrap_or_default(),
        subject: text("sub").unwrap_or_default(),
        presenter: text("azp"),
        audiences,
        claims: claims.clone(),
    }
}

/// A decision in the words of the second evaluator.
pub fn answer(decision: &Decision) -> Answer {
    let text = |rule: &std::sync::Arc<str>| rule.to_string();
    let mut audited: Vec<String> = decision.audited.iter().map(text).collect();
    audited.sort();
    Answer {
        allowed: decision.verdict == Verdict::Allow,
        rule: decision.rule.as_ref().map(text),
        audited,
        dry_run: decision.dry_run.as_ref().map(|dry_run| DryRun {
            denied_by: dry_run.denied_by.as_ref().map(text),
            allow: dry_run.allow.as_ref().map(|rule| rule.as_ref().map(text)),
        }),
    }
}

/// A world and a question, for people.
pub fn shown(world: &World, asked: &Asked) -> String {
    let text = print::documents(&print::objects(world), &[print::Hand::Plain]);
    let member = &world.members[asked.member];
    format!("aliases {:?}\n{text}\nasked of {}/{}: {asked:#?}", world.aliases, member.namespace, member.name)
}
