//! `jwksUri`: an absolute http or https URL.

use http::Uri;

/// Longest `jwksUri` (CRD `maxLength`).
const MAX_URI: usize = 2048;

/// Checks the form. Where it may point to (no redirects, no link-local or metadata addresses:
/// CVE-2026-41413) is checked by whoever fetches it, after name resolution.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_URI {
        return Err(format!("longer than {MAX_URI} characters"));
    }
    if text.contains('#') {
        return Err("a fragment (`#`) has no place in it".to_owned());
    }
    let uri: Uri = text.parse().map_err(|_| format!("`{text}` is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("`{text}` must begin with http:// or https://"));
    }
    let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?;
    if authority.as_str().contains('@') {
        return Err("credentials have no place in it".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(format!("`{text}` names no host"));
    }
    let says_port = authority.as_str().len() > uri.host().map_or(0, str::len);
    if says_port && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("`{text}` has a port that is not a number from 1 to 65535"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_absolute_http_urls_are_taken() {
        for good in [
            "https://idp.example/realms/r/protocol/openid-connect/certs",
            "http://keycloak.iam.svc:8080/certs?x=y",
            "https://[::1]:8443/certs",
            "https://[::1]/certs",
            "HTTPS://idp.example/certs",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("https://h/{}", "x".repeat(3000));
        for bad in [
            "",
            "/certs",
            "idp.example/certs",
            "idp.example",
            "ftp://idp.example/certs",
            "file:///etc/passwd",
            "https://",
            "https://user:pw@idp.example/certs",
            "https://idp.example:0/certs",
            "https://idp.example:99999/certs",
            "https://idp.example:x/certs",
            "https://idp.example/certs#f",
            "https://idp example/certs",
            "https://idp.example/\ncerts",
            long.as_str(),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
