//! One attempt to have a provider's keys: discovery where needed, then the JWKS.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    keys::{JwksError, KeySet},
    net::{Answer, Client, Document, GetError, Url, Validators, url::UrlError},
    token::json::{JsonLimits, object},
};

/// Bounds of a discovery document beside its size.
const DISCOVERY_LIMITS: JsonLimits = JsonLimits { depth: 16, values: 4_096 };

/// What an attempt brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Keys, which may be the same as before.
    Keys { keys: KeySet, max_age: Option<u64> },
    /// 304: the keys held are the present ones.
    NotModified { max_age: Option<u64> },
}

/// Why an attempt failed: words for an operator, none of the provider's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("address of the keys: {0}")]
    Url(UrlError),
    #[error("discovery address: {0}")]
    DiscoveryUrl(UrlError),
    #[error("the rule has neither jwksUri nor an issuer that is a URL")]
    NoAddress,
    #[error("discovery: {0}")]
    DiscoveryGet(GetError),
    #[error("discovery: the document is not a JSON object")]
    DiscoveryJson,
    #[error("discovery: the document is about another issuer")]
    DiscoveryIssuer,
    #[error("discovery: the document has no jwks_uri")]
    DiscoveryNoKeys,
    #[error("discovery: jwks_uri: {0}")]
    DiscoveredUrl(UrlError),
    #[error("discovery: by https, but jwks_uri is http")]
    Downgrade,
    #[error("keys: {0}")]
    Get(GetError),
    #[error("keys: the document is refused: {0}")]
    Jwks(JwksError),
    /// With the public numbers of the keys that are lost.
    #[error("keys: the document is refused: {}", JwksError::PrivateKey)]
    PrivateKeys(Vec<String>),
    #[error("keys: no answer in time")]
    Timeout,
}

/// How to have the keys of one source, and what is remembered between attempts.
#[derive(Debug)]
pub(crate) struct Provider {
    issuer: String,
    /// Where the keys are; `None`: discovery says.
    jwks_uri: Option<String>,
    client: Client,
    max_keys: usize,
    discovery_every: Duration,
    discovered: Option<(Url, Instant)>,
    validators: Validators,
}

impl Provider {
    pub(crate) fn new(
        issuer: String,
        jwks_uri: Option<String>,
        client: Client,
        max_keys: usize,
        discovery_every: Duration,
    ) -> Self {
        let validators = Validators::default();
        Self { issuer, jwks_uri, client, max_keys, discovery_every, discovered: None, validators }
    }

    /// Fetches the keys. `held`: whether there are keys that a 304 could confirm.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(crate) async fn fetch(&mut self, held: bool) -> Result<Fetched, FetchError> {
        let result = self.attempt(held).await;
        if result.is_err() {
            // The address may have moved, and what was judged wrong must not be confirmed by a 304.
            self.discovered = None;
            self.validators = Validators::default();
        }
        result
    }

    async fn attempt(&mut self, held: bool) -> Result<Fetched, FetchError> {
        let url = match &self.jwks_uri {
            Some(text) => Url::parse(text).map_err(FetchError::Url)?,
            None => self.discover().await?,
        };
        let none = Validators::default();
        let validators = if held { &self.validators } else { &none };
        match self.client.get(&url, validators).await.map_err(FetchError::Get)? {
            Answer::NotModified { max_age } => Ok(Fetched::NotModified { max_age }),
            Answer::Document(Document { body, validators, max_age }) => {
                let keys = KeySet::parse(&body, self.max_keys).map_err(|error| match error {
                    JwksError::PrivateKey => FetchError::PrivateKeys(KeySet::exposed(&body)),
                    error => FetchError::Jwks(error),
                })?;
                self.validators = validators;
                Ok(Fetched::Keys { keys, max_age })
            }
        }
    }

    /// OpenID Connect Discovery 1.0 section 4: the document must be about the issuer it was asked for.
    async fn discover(&mut self) -> Result<Url, FetchError> {
        if let Some((url, at)) = &self.discovered
            && at.elapsed() < self.discovery_every
        {
            return Ok(url.clone());
        }
        if self.issuer.is_empty() {
            return Err(FetchError::NoAddress);
        }
        let issuer = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        let address = format!("{issuer}/.well-known/openid-configuration");
        let address = Url::parse(&address).map_err(FetchError::DiscoveryUrl)?;
        let answer = self.client.get(&address, &Validators::default()).await;
        let Answer::Document(document) = answer.map_err(FetchError::DiscoveryGet)? else {
            return Err(FetchError::DiscoveryGet(GetError::UnaskedNotModified));
        };
        let document = object(&document.body, DISCOVERY_LIMITS).map_err(|_| FetchError::DiscoveryJson)?;
        if document.get("issuer").and_then(Value::as_str) != Some(self.issuer.as_str()) {
            return Err(FetchError::DiscoveryIssuer);
        }
        let uri = document.get("jwks_uri").and_then(Value::as_str);
        let url = Url::parse(uri.ok_or(FetchError::DiscoveryNoKeys)?).map_err(FetchError::DiscoveredUrl)?;
        if address.secure && !url.secure {
            return Err(FetchError::Downgrade);
        }
        self.discovered = Some((url.clone(), Instant::now()));
        Ok(url)
    }
}
