//! `fhirward explain`

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use policy::Problem;

use super::{UNUSABLE, complain, say};
use crate::{
    policy_test::{
        self, World,
        format::{
            Case, Headers, HttpVersion, Party, PolicyTest, Protocol, Request, Response, TestMetadata,
            TestSettings, Verdict, Via,
        },
    },
    problems,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// A PolicyTest file whose cases are explained; flags describe one request otherwise.
    file: Option<PathBuf>,
    /// The one case of the file.
    #[arg(long, requires = "file")]
    case: Option<String>,
    /// Files and folders of manifests.
    #[arg(long, num_args = 1.., conflicts_with = "file", required_unless_present = "file")]
    manifests: Vec<PathBuf>,
    /// Who asks: a workload (namespace/name) or an address outside the cluster.
    #[arg(long)]
    from: Option<String>,
    /// Whom: a workload (namespace/name) or an address.
    #[arg(long)]
    to: Option<String>,
    /// `gateway`: the request enters there, and routes pick the destination.
    #[arg(long)]
    via: Option<String>,
    /// Container port; with `--via gateway`, the gateway's.
    #[arg(long)]
    port: Option<u16>,
    /// Whether mTLS protects the connection; default: when both ends are enrolled workloads.
    #[arg(long)]
    mtls: Option<bool>,
    /// Method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Raw request target.
    #[arg(long, default_value = "/")]
    path: String,
    /// Header as `Name: value`; may be given again.
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// `1.1` or `2`.
    #[arg(long, default_value = "1.1")]
    http: String,
    /// Claims of a token, as JSON; the token is made and signed for this run.
    #[arg(long)]
    claims: Option<String>,
    /// `valid`, `expired`, `wrong-signature`… for the claims, or a raw token.
    #[arg(long)]
    token: Option<String>,
    /// File with a raw token, so that it stays out of the shell's history.
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Keys with which raw tokens verify: `ISSUER=FILE`, a JWKS; may be given again.
    #[arg(long)]
    jwks: Vec<String>,
    /// The clock, RFC 3339; default: now.
    #[arg(long)]
    now: Option<String>,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        match self.explain() {
            Ok((text, allowed)) => {
                say(&text);
                if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(complaints) => {
                for complaint in complaints {
                    complain(&complaint);
                }
                ExitCode::from(UNUSABLE)
            }
        }
    }

    fn explain(self) -> Result<(String, bool), Vec<String>> {
        let told = |found: Vec<Problem>| found.iter().map(problems::line).collect::<Vec<_>>();
        let keys = self.keys().map_err(|message| vec![message])?;
        let (test, file) = match &self.file {
            Some(file) => (policy_test::read(file).map_err(|problem| told(vec![problem]))?, file.clone()),
            None => (self.test().map_err(|message| vec![message])?, PathBuf::from("explain")),
        };
        let world = World::build(&test, &file, &keys).map_err(told)?;
        let wanted = |case: &&Case| self.case.as_ref().is_none_or(|name| case.name == *name);
        let mut out = String::new();
        let mut allowed = true;
        let mut seen = 0;
        for case in test.cases.iter().filter(wanted) {
            let report = world.ask(case).map_err(told)?;
            allowed &= report.verdict == Verdict::Allow;
            out += &tree(&report);
            seen += 1;
        }
        if seen == 0 {
            return Err(vec!["no case of that name in the file".to_owned()]);
        }
        Ok((out, allowed))
    }

    /// The request that the flags describe, as a PolicyTest with one case.
    fn test(&self) -> Result<PolicyTest, String> {
        let settings = TestSettings {
            now: self.now.clone().unwrap_or_else(|| jiff::Timestamp::now().to_string()),
            ..TestSettings::default()
        };
        let via = match self.via.as_deref() {
            None => None,
            Some("gateway") => Some(Via::Gateway),
            Some(other) => return Err(format!("--via {other}: only `gateway` is known")),
        };
        if self.to.is_none() && via.is_none() {
            return Err("--to or --via gateway is needed".to_owned());
        }
        let case = Case {
            name: format!("{} {}", self.method, self.path),
            from: self.from.as_deref().map(party),
            mtls: self.mtls,
            to: self.to.as_deref().map(party),
            via,
            port: self.port,
            protocol: Protocol::Http,
            sni: None,
            query: None,
            request: self.request()?,
            response: Response::default(),
            expect: None,
        };
        Ok(PolicyTest {
            api_version: policy_test::API_VERSION.to_owned(),
            kind: policy_test::KIND.to_owned(),
            metadata: TestMetadata::default(),
            manifests: self.manifests.clone(),
            inline: None,
            workloads: Vec::new(),
            settings,
            dns: BTreeMap::new(),
            idp: BTreeMap::new(),
            cases: vec![case],
        })
    }

    fn request(&self) -> Result<Request, String> {
        let header = |text: &String| {
            text.split_once(':')
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .ok_or_else(|| format!("--header {text}: expected `Name: value`"))
        };
        let claims = self.claims.as_deref().map(serde_json::from_str).transpose();
        let token = match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
                Some(text.trim().to_owned())
            }
            None => self.token.clone(),
        };
        Ok(Request {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: Headers(self.headers.iter().map(header).collect::<Result<_, _>>()?),
            http: match self.http.as_str() {
                "1.1" => HttpVersion::Http11,
                "2" => HttpVersion::Http2,
                other => return Err(format!("--http {other}: expected 1.1 or 2")),
            },
            claims: claims.map_err(|error| format!("--claims: {error}"))?,
            token,
            body: None,
        })
    }

    fn keys(&self) -> Result<Vec<(String, String)>, String> {
        let read = |text: &String| {
            let (issuer, file) =
                text.split_once('=').ok_or_else(|| format!("--jwks {text}: expected ISSUER=FILE"))?;
            let keys = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            Ok((issuer.to_owned(), keys))
        };
        self.jwks.iter().map(read).collect()
    }
}

fn party(text: &str) -> Party {
    text.parse().map_or_else(|_| Party::Workload(text.to_owned()), Party::Ip)
}

fn tree(report: &policy_test::CaseReport) -> String {
    let verdict = match report.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
        Verdict::Drop => "dropped without an answer",
    };
    let status = report.status.map_or_else(String::new, |status| format!(", status {status}"));
    let rule = report.rule.as_deref().map_or_else(String::new, |rule| format!(", by {rule}"));
    let mut out = format!("{}: {verdict}{status}{rule}\n", report.name);
    for reason in &report.reasons {
        out += &format!("  {reason}\n");
    }
    if let Some(forwarded) = &report.forwarded {
        out += &format!("  forwarded: {} {}\n", forwarded.method, forwarded.path);
    }
    out
}
