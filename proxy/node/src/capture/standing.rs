//! How capture stands, for readiness, `/config_dump` and the metrics.

use serde::Serialize;

use crate::agent::protocol::PodInfo;

/// How capture stands; published whenever it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    /// The agent is connected.
    pub(crate) agent: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// An agent was reached since the start, and each pod that it told of first was served or could not
    /// be. Stays so when the agent goes: what is served goes on being served.
    pub(crate) complete: bool,
    /// Another proxy has taken over.
    pub(crate) superseded: bool,
    /// The enrolled pods.
    pub(crate) pods: Vec<PodStanding>,
}

/// How one pod stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStanding {
    /// What the agent says of it.
    #[serde(flatten)]
    pub(crate) info: PodInfo,
    /// Where it stands here.
    pub(crate) state: PodState,
}

/// Where a pod stands at this proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PodState {
    /// Its listeners are on their way.
    Waiting,
    /// The agent could not make its listeners, or put them in service; it is asked again.
    Failed,
    /// Its listeners are accepted from, and in service.
    Serving,
}

impl PodState {
    pub(crate) const ALL: [Self; 3] = [Self::Waiting, Self::Failed, Self::Serving];

    /// As metrics have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Serving => "serving",
        }
    }
}
