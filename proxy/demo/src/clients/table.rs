//! The tutorial's table as data, and the runner that asks each of its questions.

use http::Method;
use serde_json::Value;

use super::{Error, Tokens, ask, http_client};

/// What a request brings to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No Authorization header.
    None,
    /// A bearer token that is no JWT.
    Garbage,
    /// [`Tokens::expired`].
    Expired,
    /// [`Tokens::other_realm`].
    OtherRealm,
    /// [`Tokens::alice`].
    Alice,
    /// [`Tokens::bob`].
    Bob,
    /// [`Tokens::service`].
    Service,
}

impl Credential {
    fn bearer(self, tokens: &Tokens) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Garbage => Some("not-a-token"),
            Self::Expired => Some(&tokens.expired),
            Self::OtherRealm => Some(&tokens.other_realm),
            Self::Alice => Some(&tokens.alice),
            Self::Bob => Some(&tokens.bob),
            Self::Service => Some(&tokens.service),
        }
    }
}

/// What the body must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This text and nothing else.
    Text(&'static str),
    /// A FHIR resource of this type.
    Resource(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// Who asks.
    pub credential: Credential,
    /// How.
    pub method: &'static Method,
    /// For what, below the FHIR base.
    pub path: &'static str,
    /// The status that must come.
    pub status: u16,
    /// The body that must come.
    pub body: Expected,
}

/// Envoy's body for a request that no ALLOW policy matches.
const DENIED: Expected = Expected::Text("RBAC: access denied");
/// Envoy's texts for tokens that fail (jwt_verify_lib, `getStatusString`).
const NO_JWT: Expected =
    Expected::Text("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");
const EXPIRED: Expected = Expected::Text("Jwt is expired");
const UNKNOWN_ISSUER: Expected = Expected::Text("Jwt issuer is not configured");

/// Every row of the tutorial: two ALLOW policies (Patient may GET, Medic may POST), one
/// RequestAuthentication.
pub fn tutorial_table() -> Vec<Case> {
    use Credential::{Alice, Bob, Expired, Garbage, None, OtherRealm, Service};
    const GET: &Method = &Method::GET;
    const POST: &Method = &Method::POST;
    const DELETE: &Method = &Method::DELETE;
    let row =
        |name, credential, method, path, status, body| Case { name, credential, method, path, status, body };
    vec![
        row("no token, GET", None, GET, "/Patient", 403, DENIED),
        row("no token, POST", None, POST, "/Patient", 403, DENIED),
        row("garbage token, GET", Garbage, GET, "/Patient", 401, NO_JWT),
        row("expired token, GET", Expired, GET, "/Patient", 401, EXPIRED),
        row("another realm's token, GET", OtherRealm, GET, "/Patient", 401, UNKNOWN_ISSUER),
        row("Bob (Medic), POST", Bob, POST, "/Patient", 201, Expected::Resource("Patient")),
        row("Bob (Medic), GET", Bob, GET, "/Patient", 403, DENIED),
        row("Alice (Patient), GET", Alice, GET, "/Patient", 200, Expected::Resource("Bundle")),
        row("Alice (Patient), POST", Alice, POST, "/Patient", 403, DENIED),
        row("Alice (Patient), DELETE", Alice, DELETE, "/Patient/1", 403, DENIED),
        row("service without role, GET", Service, GET, "/Patient", 403, DENIED),
    ]
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The status; 0 when no answer came.
    pub status: u16,
    /// The body in short: its text, or its resource type.
    pub body: String,
}

/// A row and what came back.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The row.
    pub case: Case,
    /// What came back.
    pub seen: Seen,
}

impl Outcome {
    /// Whether it is what the row expects.
    pub fn is_expected(&self) -> bool {
        self.seen.status == self.case.status && self.seen.body == self.case.body.short()
    }
}

impl Seen {
    /// The same with the body in short.
    pub(crate) fn in_short(self) -> Self {
        if self.status == 0 { self } else { Self { status: self.status, body: short(self.body.as_bytes()) } }
    }
}

impl Case {
    /// What `curl` is told to ask this question, but for the URL.
    pub(crate) fn curl(&self, tokens: &Tokens) -> Vec<String> {
        let mut words = vec!["-X".to_owned(), self.method.to_string()];
        let mut header = |text: String| words.extend(["-H".to_owned(), text]);
        if let Some(token) = self.credential.bearer(tokens) {
            header(format!("Authorization: Bearer {token}"));
        }
        if *self.method == Method::POST {
            header("Content-Type: application/fhir+json".to_owned());
            words.extend(["--data-binary".to_owned(), DEMO_PATIENT.to_owned()]);
        }
        words
    }
}

impl Expected {
    /// The form in which [`Seen::body`] holds the same body.
    pub fn short(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Resource(kind) => format!("a {kind} resource"),
        }
    }
}

/// Asks every question of the table, in order, at this FHIR base URL (no final slash). A request
/// without an answer is an outcome too, with status 0.
///
/// # Errors
/// [`Error::Client`] when the HTTP client cannot be set up at all.
pub async fn run(
    base: &str,
    ca_pem: Option<&str>,
    tokens: &Tokens,
    table: &[Case],
) -> Result<Vec<Outcome>, Error> {
    let client = http_client(ca_pem)?;
    let mut outcomes = Vec::with_capacity(table.len());
    for case in table {
        let seen = question(&client, base, tokens, case).await;
        outcomes.push(Outcome { case: *case, seen });
    }
    Ok(outcomes)
}

async fn question(client: &reqwest::Client, base: &str, tokens: &Tokens, case: &Case) -> Seen {
    let url = format!("{base}{}", case.path);
    let mut request = client.request(case.method.clone(), &url);
    // A client that names FHIR's own media type is refused with an OperationOutcome where the
    // workload is declared FHIR; this one asks as curl does, and gets Envoy's texts.
    request = request.header(http::header::ACCEPT, "*/*");
    if let Some(token) = case.credential.bearer(tokens) {
        request = request.bearer_auth(token);
    }
    if *case.method == Method::POST {
        request = request.header(http::header::CONTENT_TYPE, "application/fhir+json").body(DEMO_PATIENT);
    }
    match ask(request, &url).await {
        Ok((status, body)) => Seen { status, body: short(&body) },
        Err(error) => Seen { status: 0, body: error.to_string() },
    }
}

/// The patient that the tutorial's Bob sends.
pub(super) const DEMO_PATIENT: &str = include_str!("../../../../config/data-mesh/demo_patient.json");

fn short(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let kind = parsed.as_ref().and_then(|body| body.get("resourceType")).and_then(Value::as_str);
    match kind {
        Some(kind) => format!("a {kind} resource"),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}
