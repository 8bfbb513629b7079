//! The realm files, with secrets made for one start put into them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::json_files;
use crate::real::error::{RealError, Result};

/// The client whose secret is made anew for every Keycloak.
const SERVICE_CLIENT: &str = "idea-svc";
const SECRET_BYTES: usize = 24;

/// A fresh secret of letters and digits.
pub(super) fn secret() -> Result<String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| RealError::Shape("the system gives no random bytes".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes every realm file of `from` to `to`, the service client's secret in its place.
pub(super) fn write_all(from: &Path, to: &Path, service_secret: &str) -> Result<()> {
    for path in json_files(from)? {
        let read = |source| RealError::Read { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(read)?;
        let mut realm: Value = serde_json::from_str(&text)
            .map_err(|error| RealError::Shape(format!("{}: {error}", path.display())))?;
        put_secret(&mut realm, service_secret);
        let name = path.file_name().unwrap_or_default();
        fs::write(to.join(name), realm.to_string())?;
    }
    Ok(())
}

fn put_secret(realm: &mut Value, secret: &str) {
    let clients = realm.get_mut("clients").and_then(Value::as_array_mut);
    for client in clients.into_iter().flatten() {
        if client.get("clientId").and_then(Value::as_str) == Some(SERVICE_CLIENT)
            && let Some(client) = client.as_object_mut()
        {
            client.insert("secret".to_owned(), secret.into());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use xtask::provision::Part;

    fn written() -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        write_all(&Part::Keycloak.source(), folder.path(), "made-up").unwrap();
        json_files(folder.path())
            .unwrap()
            .iter()
            .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
            .collect()
    }

    fn service(realm: &Value) -> Option<&Value> {
        let clients = realm["clients"].as_array().unwrap();
        clients.iter().find(|client| client["clientId"] == SERVICE_CLIENT)
    }

    #[test]
    fn the_service_client_gets_its_secret_and_the_tree_holds_none() {
        let realms = written();
        assert_eq!(service(&realms[0]).unwrap()["secret"], "made-up");
        for path in json_files(&Part::Keycloak.source()).unwrap() {
            let realm: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
            assert!(service(&realm).is_none_or(|client| client.get("secret").is_none()));
        }
    }

    /// A realm file with `clientScopes` of its own gets only those: tokens without `sub` and roles.
    #[test]
    fn no_realm_file_lists_client_scopes() {
        for realm in written() {
            assert!(realm.get("clientScopes").is_none(), "{}", realm["realm"]);
        }
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(secret().unwrap(), secret().unwrap());
    }
}
