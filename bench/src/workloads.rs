//! What is asked of the peers.

use std::sync::Arc;

use crate::load::{BUNDLE_BYTES, Protocol, Requests, http2, upstream};
use crate::peers::{Peer, Purpose};
use crate::tokens::{Algorithm, Tokens};

use Peer::{Bare, Envoy, EnvoyLog, EnvoyNoCache, FhirGateway, Fhirward, FhirwardDefaults, Haproxy};

/// The path of the small resource: one that every peer's policy lets the token's patient read.
const PATIENT: &str = "/fhir/Patient/p1";
/// The path of the large one.
const BUNDLE: &str = "/fhir/Bundle/b1";

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A resource of 1 kB, permitted.
    Read,
    /// A Bundle of 1 MiB from the upstream, permitted.
    Download,
    /// A Bundle of 1 MiB to the upstream, permitted.
    Upload,
    /// A token without a role that any policy knows.
    WrongRole,
    /// No token at all.
    Anonymous,
}

/// What is measured beside, or instead of, throughput and latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// So many connections that do nothing.
    Idle(usize),
    /// Bad signatures for the other workload, as fast as they are refused; latency with and without.
    Flood,
    /// All policies are read anew; latency with and without.
    Reload,
}

/// One row for each of its peers.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Name, for `--only`.
    pub name: &'static str,
    /// What it is, for readers.
    pub says: &'static str,
    /// Who takes part, and who cannot, with the reason.
    pub peers: &'static [Peer],
    /// Peers that cannot do it: why.
    pub dashes: &'static [(Peer, &'static str)],
    /// How requests travel.
    pub protocol: Protocol,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// Another token for each request.
    pub fresh: bool,
    /// The requests.
    pub ask: Ask,
    /// How many policies there are.
    pub policies: usize,
    /// What else goes on.
    pub beside: Beside,
}

/// The base of the table: small reads over HTTP/1.1 with one RS256 token, one policy, the three main peers.
const READ: Workload = Workload {
    name: "read",
    says: "1 kB read, HTTP/1.1, one RS256 token",
    peers: &[Envoy, Bare, Haproxy, FhirGateway, EnvoyNoCache, Fhirward],
    dashes: &[],
    protocol: Protocol::Http1,
    algorithm: Algorithm::Rs256,
    fresh: false,
    ask: Ask::Read,
    policies: 1,
    beside: Beside::Nothing,
};

const NO_POLICY: (Peer, &str) = (Bare, "has no policy");
const GATEWAY_ONLY: (Peer, &str) = (FhirGateway, "measured with small reads and RS256 only");

/// Every workload, in the order of the table.
pub const ALL: &[Workload] = &[
    READ,
    Workload {
        name: "fresh",
        says: "1 kB read, HTTP/1.1, another RS256 token each time",
        fresh: true,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[(FhirGateway, "remembers no token: as with one")],
        ..READ
    },
    Workload {
        name: "es256",
        says: "1 kB read, HTTP/1.1, one ES256 token",
        algorithm: Algorithm::Es256,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[(FhirGateway, "knows RS256 only")],
        ..READ
    },
    Workload {
        name: "es256-fresh",
        says: "1 kB read, HTTP/1.1, another ES256 token each time",
        algorithm: Algorithm::Es256,
        fresh: true,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[(FhirGateway, "knows RS256 only")],
        ..READ
    },
    Workload {
        name: "h2",
        says: "1 kB read, HTTP/2, one RS256 token",
        protocol: Protocol::Http2,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[(FhirGateway, "speaks no HTTP/2 without TLS")],
        ..READ
    },
    Workload {
        name: "h2-fresh",
        says: "1 kB read, HTTP/2, another RS256 token each time",
        protocol: Protocol::Http2,
        fresh: true,
        peers: &[Envoy, Bare, Fhirward],
        dashes: &[(FhirGateway, "speaks no HTTP/2 without TLS")],
        ..READ
    },
    Workload {
        name: "down",
        says: "1 MiB Bundle down, HTTP/1.1, one RS256 token",
        ask: Ask::Download,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "up",
        says: "1 MiB Bundle up, HTTP/1.1, one RS256 token",
        ask: Ask::Upload,
        peers: &[Envoy, Bare, Haproxy, Fhirward],
        dashes: &[GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "policies",
        says: "as read, among 10,000 policies",
        policies: 10_000,
        peers: &[Envoy, Fhirward],
        dashes: &[
            NO_POLICY,
            (Haproxy, "rules by hand, no policies"),
            (FhirGateway, "one checker, no policies"),
        ],
        ..READ
    },
    Workload {
        name: "idle",
        says: "as read, beside 1,000 idle connections",
        beside: Beside::Idle(1000),
        peers: &[Envoy, Bare, Fhirward],
        dashes: &[GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "wrong-role",
        says: "denied: 403 for the token's role",
        ask: Ask::WrongRole,
        peers: &[Envoy, Haproxy, Fhirward],
        dashes: &[NO_POLICY, GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "anonymous",
        says: "denied: 403 without token",
        ask: Ask::Anonymous,
        peers: &[Envoy, Haproxy, Fhirward],
        dashes: &[NO_POLICY, GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "flood",
        says: "as read, beside a flood of bad signatures for another workload",
        beside: Beside::Flood,
        peers: &[Envoy, Fhirward],
        dashes: &[NO_POLICY, GATEWAY_ONLY, (Haproxy, "one workload")],
        ..READ
    },
    Workload {
        name: "reload",
        says: "as policies, while all 10,000 are read anew",
        policies: 10_000,
        beside: Beside::Reload,
        peers: &[Fhirward],
        dashes: &[NO_POLICY, (Envoy, "old connections keep the old listener"), GATEWAY_ONLY],
        ..READ
    },
    Workload {
        name: "logged",
        says: "as read, with access log; ours at its defaults",
        peers: &[EnvoyLog, FhirwardDefaults],
        dashes: &[NO_POLICY, GATEWAY_ONLY],
        ..READ
    },
];

impl Workload {
    /// What a peer is started for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        Purpose { policies: self.policies, algorithm: self.algorithm, protocol: self.protocol }
    }

    /// The status of every answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self.ask {
            Ask::Read | Ask::Download => 200,
            Ask::Upload => 201,
            Ask::WrongRole | Ask::Anonymous => 403,
        }
    }

    /// Whether the upstream sees the requests.
    #[must_use]
    pub const fn is_permitted(&self) -> bool {
        self.status() < 400
    }

    /// The requests with one token.
    #[must_use]
    pub fn repeating(&self, authority: &str, tokens: &Tokens) -> Requests {
        let known = tokens.of(self.algorithm).first().map(|token| &**token);
        let token = match self.ask {
            Ask::WrongRole => Some(&*tokens.visitor),
            Ask::Anonymous => None,
            Ask::Upload => Some(&*tokens.medic),
            Ask::Read | Ask::Download => known,
        };
        let path = if self.ask == Ask::Download { BUNDLE } else { PATIENT };
        if self.protocol == Protocol::Http2 {
            let mut block = http2::get_block(authority, path);
            if let Some(token) = token {
                http2::add_bearer(&mut block, token);
            }
            return Requests::Same(block.into());
        }
        let body = (self.ask == Ask::Upload).then(|| upstream::bundle(BUNDLE_BYTES));
        let mut message = head(authority, if body.is_some() { "POST" } else { "GET" }, path);
        if let Some(token) = token {
            message.extend_from_slice(b"authorization: Bearer ");
            message.extend_from_slice(token);
            message.extend_from_slice(b"\r\n");
        }
        match &body {
            Some(body) => {
                let length = body.len();
                message.extend_from_slice(
                    format!("content-type: application/fhir+json\r\ncontent-length: {length}\r\n\r\n{body}")
                        .as_bytes(),
                );
            }
            None => message.extend_from_slice(b"\r\n"),
        }
        Requests::Same(message.into())
    }

    /// What comes before the token in requests with fresh ones.
    #[must_use]
    pub fn before_token(&self, authority: &str) -> Arc<[u8]> {
        match self.protocol {
            Protocol::Http1 | Protocol::Hbone(_) => head(authority, "GET", PATIENT).into(),
            Protocol::Http2 => http2::get_block(authority, PATIENT).into(),
        }
    }
}

fn head(authority: &str, method: &str, path: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\naccept: application/fhir+json\r\nuser-agent: bench\r\n")
        .into_bytes()
}
