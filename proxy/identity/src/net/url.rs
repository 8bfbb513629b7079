//! The URL of a document: absolute, http or https, no user name.

use std::fmt;

use http::Uri;

/// A checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    uri: Uri,
    /// Host without brackets.
    pub(crate) host: String,
    /// Port, defaulted by scheme.
    pub(crate) port: u16,
    /// https.
    pub(crate) secure: bool,
}

/// Why a URL cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("it is not a URL")]
    Malformed,
    #[error("its scheme is neither http nor https")]
    Scheme,
    #[error("it has a user name")]
    User,
    #[error("it names a metadata service")]
    Metadata,
}

impl Url {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| UrlError::Malformed)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(UrlError::Scheme),
        };
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // The parser takes ports that are none (`:`, `:99999`) for absent.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") if secure => 443,
            Some("") => 80,
            Some(rest) => port(rest).ok_or(UrlError::Malformed)?,
            None => return Err(UrlError::Malformed),
        };
        if host.is_empty() {
            return Err(UrlError::Malformed);
        }
        if super::address::is_refused_name(&host) {
            return Err(UrlError::Metadata);
        }
        Ok(Self { uri, host, port, secure })
    }

    /// `host[:port]` as written: the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }
}

fn port(text: &str) -> Option<u16> {
    text.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the query: some keep secrets there.
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.uri.path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn takes_http_and_https_alone() {
        let url = Url::parse("https://idp.example/realms/r/certs?x=1").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.secure), ("idp.example", 443, true));
        assert_eq!(url.target(), "/realms/r/certs?x=1");
        assert_eq!(url.to_string(), "https://idp.example/realms/r/certs");
        let url = Url::parse("http://[::1]:8180").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target()), ("::1", 8180, "/"));
        for (text, wrong) in [
            ("file:///etc/passwd", UrlError::Malformed),
            ("gopher://h/x", UrlError::Scheme),
            ("//h/x", UrlError::Scheme),
            ("/x", UrlError::Scheme),
            ("", UrlError::Malformed),
            ("http://u:p@h/", UrlError::User),
            ("http://h:0/", UrlError::Malformed),
            ("http://h:99999/", UrlError::Malformed),
            ("http://metadata.google.internal/computeMetadata/v1/", UrlError::Metadata),
        ] {
            assert_eq!(Url::parse(text), Err(wrong), "{text}");
        }
    }
}
