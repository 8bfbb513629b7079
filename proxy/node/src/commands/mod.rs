//! The commands: each turns its arguments into a call and the outcome into an exit code.
//!
//! Exit codes: 0 all well; 1 a problem, a failed case, a denial; 2 something could not be read or started.

mod agent;
mod check;
mod doctor;
mod explain;
mod node;
mod output;
mod run;
mod status;
mod test;

use std::process::ExitCode;

pub(crate) use output::{complain, say};

/// Something could not be read, parsed or started.
const UNUSABLE: u8 = 2;

/// The commands.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run the proxy: on the settings' listeners, and for captured pods where the settings have some.
    Run(run::Arguments),
    /// Run the proxy of this node's captured pods, which `fhirward agent` captures. Started as root, it
    /// becomes another user and gives up every right.
    Node(node::Arguments),
    /// Run the agent of this node: capture pods' traffic by eBPF and hand `fhirward node` sockets
    /// inside them. Needs root.
    Agent(agent::Arguments),
    /// Tell how the agent, its pods and its proxies stand, and why a pod is not enrolled.
    Status(status::Arguments),
    /// Tell whether this node can capture, and what to do where it cannot. Needs root.
    Doctor(doctor::Arguments),
    /// Check manifests: schema, unknown fields, rules that can never match, Keycloak traps.
    Check(check::Arguments),
    /// Explain one request: every rule looked at, what matched, what did not and what it saw.
    Explain(Box<explain::Arguments>),
    /// Run PolicyTest files.
    Test(test::Arguments),
    /// Print the settings reference (Markdown).
    SettingsReference,
}

impl Command {
    /// Runs it.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self {
            Self::Run(arguments) => arguments.run(),
            Self::Node(arguments) => arguments.run(),
            Self::Agent(arguments) => arguments.run(),
            Self::Status(arguments) => arguments.run(),
            Self::Doctor(arguments) => arguments.run(),
            Self::Check(arguments) => arguments.run(),
            Self::Explain(arguments) => arguments.run(),
            Self::Test(arguments) => arguments.run(),
            Self::SettingsReference => {
                say(&crate::settings::reference());
                ExitCode::SUCCESS
            }
        }
    }
}
