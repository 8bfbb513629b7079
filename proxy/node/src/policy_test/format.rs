//! The PolicyTest file: manifests, workloads, requests, and what must be decided.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use policy::target::Normalization;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `kind: PolicyTest`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTest {
    /// `fhirward.dev/v1alpha1`
    pub api_version: String,
    /// `PolicyTest`
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub metadata: TestMetadata,
    /// Files or folders, relative to the test's own file.
    #[serde(default)]
    pub manifests: Vec<PathBuf>,
    /// More manifests.
    #[serde(default)]
    pub inline: Option<String>,
    /// Workloads added to those of the manifests, as the proxy's own settings have them.
    #[serde(default)]
    pub workloads: Vec<mesh::WorkloadSettings>,
    /// Mesh settings.
    #[serde(default)]
    pub settings: TestSettings,
    /// What the DNS proxy has learned.
    #[serde(default)]
    pub dns: BTreeMap<String, Vec<IpAddr>>,
    /// Health of issuers.
    #[serde(default)]
    pub idp: BTreeMap<String, identity::Health>,
    /// Questions.
    #[serde(default)]
    pub cases: Vec<Case>,
}

/// `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TestMetadata {
    /// Name of the test.
    pub name: String,
    /// Looked at by nobody.
    pub namespace: Option<String>,
    /// Looked at by nobody.
    pub labels: BTreeMap<String, String>,
    /// Looked at by nobody.
    pub annotations: BTreeMap<String, String>,
}

/// `settings`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TestSettings {
    /// Trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// Root namespace.
    pub root_namespace: String,
    /// Normalisation mode.
    pub path_normalization: Normalization,
    /// Refuse ambiguous targets.
    pub strict_target: bool,
    /// Trusted proxies in front of the gateway.
    pub num_trusted_proxies: u32,
    /// The only clock the run knows: RFC 3339.
    pub now: String,
}

impl Default for TestSettings {
    fn default() -> Self {
        let mesh = mesh::MeshSettings::default();
        Self {
            trust_domain: mesh.trust_domain,
            trust_domain_aliases: mesh.trust_domain_aliases,
            root_namespace: mesh.root_namespace,
            path_normalization: mesh.path_normalization,
            strict_target: mesh.strict_target,
            num_trusted_proxies: mesh.num_trusted_proxies,
            now: "2026-11-22T12:00:00Z".to_owned(),
        }
    }
}

/// One question.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// Name.
    pub name: String,
    /// Who asks; default: an address outside the cluster.
    #[serde(default)]
    pub from: Option<Party>,
    /// Default: when both ends are enrolled workloads.
    #[serde(default)]
    pub mtls: Option<bool>,
    /// Whom.
    #[serde(default)]
    pub to: Option<Party>,
    /// Enters through the ingress gateway.
    #[serde(default)]
    pub via: Option<Via>,
    /// Container port; at the gateway, the gateway's.
    #[serde(default)]
    pub port: Option<u16>,
    /// Protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS server name.
    #[serde(default)]
    pub sni: Option<String>,
    /// DNS name asked for.
    #[serde(default)]
    pub query: Option<String>,
    /// The request.
    #[serde(default)]
    pub request: Request,
    /// What the upstream would answer.
    #[serde(default)]
    pub response: Response,
    /// What must come of it.
    #[serde(default)]
    pub expect: Option<Expect>,
}

/// One end: `namespace/name`, `{ip: …}` or `{fqdn: …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// A workload.
    Workload(String),
    /// An address.
    Ip(IpAddr),
    /// A name outside the cluster.
    Fqdn(String),
}

impl<'de> Deserialize<'de> for Party {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Address {
            #[serde(default)]
            ip: Option<IpAddr>,
            #[serde(default)]
            fqdn: Option<String>,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Party;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a workload (namespace/name), {ip: …} or {fqdn: …}")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Party, E> {
                Ok(Party::Workload(text.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Party, A::Error> {
                let address = Address::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                match (address.ip, address.fqdn) {
                    (Some(ip), None) => Ok(Party::Ip(ip)),
                    (None, Some(fqdn)) => Ok(Party::Fqdn(fqdn)),
                    _ => Err(serde::de::Error::custom("expected either `ip` or `fqdn`")),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Via {
    /// The ingress gateway.
    Gateway,
}

/// `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP.
    #[default]
    Http,
    /// Raw TCP.
    Tcp,
    /// TLS passed through.
    Tls,
    /// A DNS query.
    Dns,
}

/// `request`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Raw request target.
    pub path: String,
    /// Headers; a list sends the header once per value.
    pub headers: Headers,
    /// HTTP version.
    pub http: HttpVersion,
    /// Claims of the token.
    pub claims: Option<serde_json::Map<String, Value>>,
    /// `valid`, a kind of bad one, `none`, or a raw compact JWS.
    pub token: Option<String>,
    /// Body.
    pub body: Option<String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: Headers::default(),
            http: HttpVersion::Http11,
            claims: None,
            token: None,
            body: None,
        }
    }
}

/// `http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// `1.1`
    Http11,
    /// `2`
    Http2,
}

impl<'de> Deserialize<'de> for HttpVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `http: 2` is written without quotes as often as with them.
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        match text.as_str() {
            "1.1" => Ok(Self::Http11),
            "2" | "2.0" => Ok(Self::Http2),
            _ => Err(serde::de::Error::custom("expected \"1.1\" or \"2\"")),
        }
    }
}

/// Headers in the order written, each value once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Headers;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of header names to a value or a list of values")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let OneOrMany(values) = map.next_value()?;
                    headers.extend(values.into_iter().map(|value| (name.clone(), value)));
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

struct OneOrMany(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let scalar = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        let value = Value::deserialize(deserializer)?;
        let values = match &value {
            Value::Array(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>(),
            other => scalar(other).map(|text| vec![text]),
        };
        values.map(Self).ok_or_else(|| serde::de::Error::custom("expected a header value or a list of them"))
    }
}

/// `response`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: String,
}

impl Default for Response {
    fn default() -> Self {
        Self { status: 200, headers: Headers::default(), body: String::new() }
    }
}

/// `verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// An HTTP or DNS answer says no.
    Deny,
    /// Refused at connection level, no answer.
    Drop,
}

/// `expect`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// Verdict.
    pub verdict: Option<Verdict>,
    /// Status the client sees.
    pub status: Option<u16>,
    /// Body the client sees.
    pub body: Option<String>,
    /// Rule that decided.
    pub rule: Option<String>,
    /// A substring of the explanation.
    pub reason: Option<String>,
    /// What reaches the upstream.
    pub forwarded: Option<ExpectForwarded>,
}

/// `forwarded`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectForwarded {
    /// Method.
    pub method: Option<String>,
    /// Target.
    pub path: Option<String>,
    /// Headers that must be there with these values.
    pub headers: Headers,
    /// Headers that must not be there.
    pub absent_headers: Vec<String>,
    /// Body.
    pub body: Option<String>,
}
