//! Key rotation over Keycloak's admin REST: a new key first, the old ones taken away later.

use serde::Deserialize;
use serde_json::{Value, json};

use super::tokens::{checked, kid};
use super::{ADMIN, Keycloak};
use crate::real::error::{RealError, Result};

const KEY_PROVIDER: &str = "org.keycloak.keys.KeyProvider";
const RSA_PROVIDER: &str = "rsa-generated";
/// Keycloak's own first key has 100.
const FIRST_PRIORITY: u32 = 200;

/// What a rotation has changed: the newest key signs, the older ones still verify.
#[derive(Debug, Clone)]
pub struct Rotation {
    realm: String,
    /// The `kid` that signs now.
    pub kid: String,
    /// The providers of the keys that signed before, for [`Keycloak::retire_keys`].
    older: Vec<String>,
}

/// A component of Keycloak's admin REST, as far as it is used here.
#[derive(Debug, Deserialize)]
struct Component {
    id: String,
    #[serde(rename = "providerId")]
    provider_id: String,
    config: Value,
}

impl Component {
    fn priority(&self) -> u32 {
        let text = self.config.pointer("/priority/0").and_then(Value::as_str);
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

impl Keycloak {
    /// Adds an RSA key that signs from now on. The keys before stay in the JWKS until
    /// [`retire_keys`](Self::retire_keys).
    ///
    /// # Errors
    /// When the admin REST cannot be reached or refuses.
    pub async fn rotate_keys(&self, realm: &str) -> Result<Rotation> {
        let admin = self.admin_token().await?;
        let older = self.signing_providers(realm, &admin).await?;
        let highest = older.iter().map(Component::priority).max().unwrap_or(0);
        let priority = FIRST_PRIORITY.max(highest + 1);
        let id = self.realm_id(realm, &admin).await?;
        let provider = json!({
            "name": format!("rotated-{priority}"),
            "providerId": RSA_PROVIDER,
            "providerType": KEY_PROVIDER,
            "parentId": id,
            "config": {
                "priority": [priority.to_string()],
                "keySize": ["2048"],
                "algorithm": ["RS256"],
                "enabled": ["true"],
                "active": ["true"],
            },
        });
        let url = self.admin_url(realm, "/components");
        let response = self.http.post(url).bearer_auth(&admin).json(&provider).send().await?;
        checked("adding a key", response).await?;
        let kid = self.active_kid(realm, &admin).await?;
        let older = older.into_iter().map(|component| component.id).collect();
        Ok(Rotation { realm: realm.to_owned(), kid, older })
    }

    /// Takes the keys before `rotation` away: tokens that they signed no longer verify.
    ///
    /// # Errors
    /// When the admin REST cannot be reached or refuses.
    pub async fn retire_keys(&self, rotation: &Rotation) -> Result<()> {
        let admin = self.admin_token().await?;
        for id in &rotation.older {
            let url = self.admin_url(&rotation.realm, &format!("/components/{id}"));
            let response = self.http.delete(url).bearer_auth(&admin).send().await?;
            checked("removing a key", response).await?;
        }
        Ok(())
    }

    /// The `kid` that a token names in its header.
    ///
    /// # Errors
    /// When it is no JWT or names none.
    pub fn kid_of(token: &str) -> Result<String> {
        kid(token)
    }

    async fn admin_token(&self) -> Result<String> {
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", ADMIN),
            ("password", self.admin_password.as_str()),
        ];
        Ok(self.grant("master", &form).await?.access_token)
    }

    fn admin_url(&self, realm: &str, path: &str) -> String {
        format!("{}/admin/realms/{realm}{path}", self.base_url)
    }

    async fn signing_providers(&self, realm: &str, admin: &str) -> Result<Vec<Component>> {
        let url = self.admin_url(realm, "/components");
        let request = self.http.get(url).query(&[("type", KEY_PROVIDER)]).bearer_auth(admin);
        let response = checked("listing the keys", request.send().await?).await?;
        let mut components: Vec<Component> = response.json().await?;
        components.retain(|component| component.provider_id == RSA_PROVIDER);
        Ok(components)
    }

    async fn realm_id(&self, realm: &str, admin: &str) -> Result<String> {
        let response = self.http.get(self.admin_url(realm, "")).bearer_auth(admin).send().await?;
        let value: Value = checked("reading the realm", response).await?.json().await?;
        text(&value, "/id")
    }

    async fn active_kid(&self, realm: &str, admin: &str) -> Result<String> {
        let response = self.http.get(self.admin_url(realm, "/keys")).bearer_auth(admin).send().await?;
        let value: Value = checked("reading the keys", response).await?.json().await?;
        text(&value, "/active/RS256")
    }
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| RealError::Shape(format!("Keycloak's answer has no text at {pointer}")))
}
