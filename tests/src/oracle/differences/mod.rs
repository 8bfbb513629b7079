//! In what we differ from Envoy on purpose: the short table, held to what README says.

mod heads;
mod tokens;

use super::model::{Request, World};
use super::view::{Delta, Verdict, View};

/// One difference, with its reason.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// What it is about.
    pub what: &'static str,
    /// What we do.
    pub here: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Whether it accounts for a delta.
    explains: fn(&Case<'_>, &Delta) -> bool,
}

/// A request on which the proxies differ.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The world.
    pub world: &'a World,
    /// The request.
    pub request: &'a Request,
    /// What Envoy did.
    pub envoy: &'a View,
    /// What we did.
    pub ours: &'a View,
}

impl Difference {
    /// Whether it accounts for a delta.
    #[must_use]
    pub fn explains(&self, case: &Case<'_>, delta: &Delta) -> bool {
        (self.explains)(case, delta)
    }

    /// Its row in README.
    #[must_use]
    pub fn row(&self) -> String {
        format!("| {} | {} | {} |", self.what, self.here, self.reason)
    }
}

/// The table: an entry accounts for a delta where none before it does.
#[must_use]
pub fn all() -> Vec<Difference> {
    [heads::DIFFERENCES, tokens::DIFFERENCES].concat()
}

/// What the comparison does not reach: its rows in README.
pub const ELSEWHERE: [(&str, &str, &str); 6] = [
    (
        "HMAC and `oct` keys, RSA under 2048 bits, a JWKS with private members",
        "not used",
        "each makes tokens forgeable somewhere",
    ),
    (
        "trailers by the names of credentials, proxy headers or headers that carry claims",
        "removed",
        "no policy has seen them",
    ),
    (
        "unknown fields and misspelt kinds in manifests",
        "the file is refused",
        "a misspelt field widens a rule; kubectl's strict validation refuses it too",
    ),
    (
        "`targetRefs` of kind Service and Gateway",
        "select the workloads behind them",
        "a sidecar ignores them, and there is no waypoint here",
    ),
    ("CUSTOM", "denies what it matches", "there is no external authorizer yet"),
    (
        "keys",
        "fetched again on an unknown `kid`; the last good ones are used while the provider is down",
        "`identity.keys.maxAgeSeconds` bounds it",
    ),
];

impl Case<'_> {
    /// Whether we refuse the request as a message, whatever policy says of it.
    fn refused_here(&self, delta: &Delta) -> bool {
        self.refused_with(delta, 400)
    }

    /// Whether that is how we answer, or how we answer a gRPC client, and Envoy does not; or another way than Envoy
    /// drops it.
    fn refused_with(&self, delta: &Delta, status: u16) -> bool {
        let grpc = match self.ours {
            View::Answered(reply) => {
                let code = if status == 400 { "13" } else { "2" };
                reply.status == 200 && reply.header("grpc-status") == Some(code.as_bytes())
            }
            _ => false,
        };
        match delta {
            Delta::Verdict(_, ours) => *ours == Verdict::Status(status) || *ours == Verdict::Dropped || grpc,
            Delta::AnswerHeader(name, ..) => {
                grpc && matches!(name.as_str(), "grpc-status" | "grpc-message" | "www-authenticate")
            }
            _ => false,
        }
    }

    fn ours_says(&self, words: &[&str]) -> bool {
        let mut body = String::from_utf8_lossy(self.ours.body()).into_owned();
        if let View::Answered(reply) = self.ours {
            body += &String::from_utf8_lossy(reply.header("grpc-message").unwrap_or_default());
        }
        words.iter().any(|word| body.contains(word))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::harness::repository;

    #[test]
    fn readme_holds_the_same_table() {
        let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
        let (_, rest) = readme.split_once("<!-- envoy:begin -->\n").unwrap();
        let (told, _) = rest.split_once("<!-- envoy:end -->").unwrap();
        let head = "| what | here | why |\n|---|---|---|\n".to_owned();
        let compared = all().iter().map(|entry| entry.row() + "\n").collect::<String>();
        let elsewhere = ELSEWHERE
            .iter()
            .map(|(what, here, why)| format!("| {what} | {here} | {why} |\n"))
            .collect::<String>();
        let table = format!("{head}{compared}{elsewhere}");
        assert_eq!(told, table, "README's table of differences is to be:\n{table}");
    }
}
