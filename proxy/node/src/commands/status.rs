//! `fhirward status`

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use super::{UNUSABLE, complain, say};
use crate::{
    Settings,
    agent::protocol::{
        AgentStatus, Ask, Client, Hello, News, PodStatus, ProxyStatus, Role, State, StatusPart, VERSION,
    },
    problems,
};

/// Longest wait for the whole status.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Arguments {
    /// Settings file of the agent.
    #[arg(long)]
    config: PathBuf,
    /// As JSON, everything.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> ExitCode {
        let status = Settings::load(&self.config).map_err(|problem| problems::line(&problem)).and_then(ask);
        match status {
            Ok(status) if self.json => match serde_json::to_string_pretty(&status) {
                Ok(text) => {
                    say(&format!("{text}\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error.to_string()),
            },
            Ok(status) => {
                say(&text(&status));
                ExitCode::SUCCESS
            }
            Err(message) => failed(&message),
        }
    }
}

fn failed(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(UNUSABLE)
}

fn ask(settings: Settings) -> Result<StatusPart, String> {
    let capture = settings.capture.ok_or("the settings have no `capture`: no agent is at work")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot be started: {error}"))?;
    let asked = async {
        let hello = Hello { version: VERSION, role: Role::Operator, started: 0, serving: Vec::new() };
        let mut client = Client::connect(&capture.socket, hello).await.map_err(|error| error.to_string())?;
        client.sender.ask(1, Ask::Status {}).await.map_err(|error| error.to_string())?;
        match client.receiver.next().await.map_err(|error| error.to_string())? {
            (_, News::Status(status)) => Ok(status),
            (_, News::Refused(_, detail)) => Err(detail),
            _ => Err("the agent answered something else".to_owned()),
        }
    };
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "the agent does not answer".to_owned())?
    })
}

/// For people: the agent first, then the pods, enrolled ones first, then what was counted.
fn text(status: &StatusPart) -> String {
    let agent = status.agent.clone().unwrap_or_default();
    let mut page = String::new();
    head(&mut page, &agent);
    let mut pods: Vec<&PodStatus> = status.pods.iter().collect();
    pods.sort_by_key(|pod| (pod.state == State::NotEnrolled, &pod.name, &pod.cgroup));
    for pod in &pods {
        one(&mut page, pod);
    }
    if pods.is_empty() {
        page.push_str("no pods are here\n");
    }
    let counted: Vec<_> = agent.counters.iter().filter(|(_, value)| *value > 0).collect();
    if !counted.is_empty() {
        page.push_str("counted by the BPF programs:\n");
    }
    for (name, value) in counted {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "  {value:>12} {name}");
    }
    page
}

fn head(page: &mut String, agent: &AgentStatus) {
    let AgentStatus { version, pid, uptime_seconds, pins, snapshot, .. } = agent;
    let _ = writeln!(page, "agent {version}, process {pid}, up {uptime_seconds} s, pins in {pins}");
    let manifests = match (snapshot, agent.problems.is_empty()) {
        (0, _) => "not good yet: what was enrolled stays so, nothing new is".to_owned(),
        (version, true) => format!("version {version}"),
        (version, false) => format!("version {version} holds; as they stand now they are refused"),
    };
    let _ = writeln!(page, "manifests: {manifests}");
    for problem in agent.problems.iter().chain(&agent.sources) {
        let _ = writeln!(page, "  ! {problem}");
    }
    for ProxyStatus { pid, serves, superseded } in &agent.proxies {
        let state = if *superseded { ", another has taken over: it drains" } else { "" };
        let _ = writeln!(page, "proxy: process {pid}, serves {serves} pods{state}");
    }
    if agent.proxies.is_empty() {
        page.push_str(
            "proxy: none is connected; connections of enrolled pods are refused unless one still serves\n",
        );
    }
}

fn one(page: &mut String, pod: &PodStatus) {
    let _ = write!(page, "{:<12} {}", pod.state.name(), pod.name);
    if let Some(key) = pod.key {
        let _ = write!(page, " slot {}", key.slot);
    }
    for address in &pod.addresses {
        let _ = write!(page, " {address}");
    }
    let _ = writeln!(page, "\n             {}: {}", pod.reason.name(), pod.detail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::{PodKey, Reason};

    #[test]
    fn enrolled_pods_come_first_and_each_says_why() {
        let pod = |name: &str, state, reason, key| PodStatus {
            name: name.to_owned(),
            uid: None,
            key,
            cgroup: "/cg/a".to_owned(),
            addresses: vec![std::net::IpAddr::from([10, 0, 0, 1])],
            state,
            reason,
            detail: "because".to_owned(),
        };
        let status = StatusPart {
            more: false,
            agent: Some(AgentStatus {
                counters: vec![("guard_syn".to_owned(), 3), ("guard_dns".to_owned(), 0)],
                problems: vec!["a.yaml:1: no".to_owned()],
                ..AgentStatus::default()
            }),
            pods: vec![
                pod("a/out", State::NotEnrolled, Reason::HostNetwork, None),
                pod("b/in", State::Serving, Reason::OptedIn, Some(PodKey { slot: 4, netns: 9 })),
            ],
        };
        let page = text(&status);
        let serving = page.find("serving      b/in slot 4 10.0.0.1\n             opted_in: because");
        let out = page.find("not_enrolled a/out 10.0.0.1\n             host_network: because");
        assert!(serving.is_some() && serving < out, "{page}");
        assert!(page.contains("           3 guard_syn") && !page.contains("guard_dns"), "{page}");
        assert!(page.contains("not good yet") && page.contains("! a.yaml:1: no"), "{page}");
        assert!(page.contains("proxy: none"), "{page}");
    }
}
