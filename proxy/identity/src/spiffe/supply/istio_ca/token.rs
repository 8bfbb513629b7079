//! The token that says who asks, and what it says itself where the authority does not say why it refuses.

use std::{fmt::Write as _, path::Path};

use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use policy::SpiffeId;
use serde::Deserialize;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::super::{SupplyError, trust::read};

/// The largest token.
const TOKEN_BYTES: u64 = 64 * 1024;
/// The audience that istiod looks for, unless it was told of another.
const AUDIENCE: &str = "istio-ca";
/// The longest name out of a token that is told on.
const TOLD_CHARACTERS: usize = 100;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token, and how it is shown.
pub(super) struct Token {
    text: Zeroizing<String>,
    bearer: MetadataValue<Ascii>,
}

impl Token {
    /// What the file holds. May block.
    pub(super) fn read(path: &Path) -> Result<Self, SupplyError> {
        let failed = |reason: &str| SupplyError::File { path: path.to_owned(), reason: reason.to_owned() };
        let bytes = Zeroizing::new(read(path, TOKEN_BYTES)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("is no token"))?.trim();
        if text.is_empty() {
            return Err(failed("is empty"));
        }
        let bearer = Zeroizing::new(format!("Bearer {text}"));
        let mut bearer = MetadataValue::try_from(bearer.as_str()).map_err(|_| failed("is no token"))?;
        bearer.set_sensitive(true);
        Ok(Self { text: Zeroizing::new(text.to_owned()), bearer })
    }

    /// `Bearer` and the token.
    pub(super) fn bearer(&self) -> MetadataValue<Ascii> {
        self.bearer.clone()
    }

    /// Why the authority may have said no: istiod answers `request authenticate failure` to whatever is
    /// wrong, and its reasons are in its own log. By the token's own claims, which nobody has verified.
    pub(super) fn doubt(&self, impersonated: Option<&SpiffeId>, now: i64) -> String {
        let Some(claims) = self.claims() else { return "the token is not a JWT".to_owned() };
        if claims.exp.is_some_and(|end| end <= now) {
            return "the token has expired".to_owned();
        }
        if !claims.aud.names().any(|name| name == AUDIENCE) {
            let names: Vec<&str> = claims.aud.names().collect();
            return format!("the token is for {}, not for {AUDIENCE}", told(&names.join(", ")));
        }
        let Some(id) = impersonated else { return "the token's claims look right".to_owned() };
        let Some(pod) = claims.kubernetes.filter(|bound| bound.pod.is_some()) else {
            return "the token is bound to no pod, and istiod asks which node that is on".to_owned();
        };
        let Kubernetes { namespace, serviceaccount, node, .. } = pod;
        let account = told(&format!("{namespace}/{}", serviceaccount.name));
        let mut text = format!("istiod must have {account} in CA_TRUSTED_NODE_ACCOUNTS");
        let node = node.map_or_else(|| "the node of the token's pod".to_owned(), |node| told(&node.name));
        // Writing to a String does not fail.
        let _ = write!(text, ", and a pod of {}/{} on {node}", id.namespace, id.service_account);
        text
    }

    fn claims(&self) -> Option<Claims> {
        let payload = self.text.split('.').nth(1)?;
        serde_json::from_slice(&Zeroizing::new(BASE64.decode(payload).ok()?)).ok()
    }
}

/// Cut and escaped: it goes into logs.
fn told(text: &str) -> String {
    text.escape_debug().take(TOLD_CHARACTERS).collect()
}

/// What Kubernetes says in a token of a service account.
#[derive(Deserialize)]
struct Claims {
    exp: Option<i64>,
    #[serde(default)]
    aud: Audience,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    fn names(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
        .iter()
        .map(String::as_str)
    }
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}
