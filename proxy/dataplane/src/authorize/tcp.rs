//! Raw TCP: the policies' word on a connection without a request.

use std::{net::SocketAddr, sync::Arc};

use mesh::Workload;
use observe::Record;
use policy::{Decision, Question, Verdict};

use super::{Caller, decide};
use crate::{
    admit::AdmitError,
    capture::{HostConnection, Pod, Use},
    engine::Trace,
};

/// A raw TCP connection that every family lets pass. One maker: this room.
#[derive(Debug)]
pub struct PermittedTcp {
    upstream: SocketAddr,
    decision: Option<Decision>,
    /// What is known so far for the record.
    pub(crate) story: Box<Record>,
}

impl PermittedTcp {
    /// Where the bytes go.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// What was decided; none where no policy is asked.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    pub(crate) fn with_story(self, story: Box<Record>) -> Self {
        Self { story, ..self }
    }
}

/// A connection that may leave a captured pod for somewhere else. One maker: this room.
#[derive(Debug)]
pub(crate) struct PermittedOutside {
    pod: Arc<Pod>,
    address: SocketAddr,
    what: Use,
}

impl PermittedOutside {
    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn what(&self) -> Use {
        self.what
    }
}

/// Asks about a raw TCP connection: no request, so rules with HTTP fields follow Istio's translation.
///
/// # Errors
/// [`AdmitError::PolicyDenied`].
pub(crate) fn authorize_tcp(
    caller: Caller<'_>,
    (workload, port): (&Workload, u16),
    trace: &mut Trace,
) -> Result<PermittedTcp, (AdmitError, Box<Decision>)> {
    let question =
        Question { source: caller.source(), destination: caller.destination(workload, port), request: None };
    let decision = decide(&workload.policy, &question, trace);
    match decision.verdict {
        Verdict::Allow => {
            let upstream = caller.upstream(workload, port);
            Ok(PermittedTcp { upstream, decision: Some(decision), story: Box::default() })
        }
        Verdict::Deny => Err((AdmitError::PolicyDenied(decision.rule.clone()), Box::new(decision))),
    }
}

/// Whether any request or bytes of a caller could pass.
pub(crate) fn may_permit(caller: Caller<'_>, (workload, port): (&Workload, u16)) -> bool {
    let question =
        Question { source: caller.source(), destination: caller.destination(workload, port), request: None };
    workload.policy.may_permit(&question)
}

/// The host's own traffic, where the operator lets all of it pass: no policy is asked.
pub(crate) fn pass_host(host: &HostConnection, story: Box<Record>) -> PermittedTcp {
    PermittedTcp { upstream: host.address(), decision: None, story }
}

/// A connection of a captured pod to somewhere that is not a captured pod: no policy speaks of that
/// direction.
pub(crate) fn pass_outside(pod: &Arc<Pod>, address: SocketAddr) -> PermittedOutside {
    PermittedOutside { pod: Arc::clone(pod), address, what: Use::Egress }
}

/// A pod calls its own address, which is its loopback by another name: no policy speaks of that.
pub(crate) fn pass_own(pod: &Arc<Pod>, address: SocketAddr) -> PermittedOutside {
    PermittedOutside { pod: Arc::clone(pod), address, what: Use::Ingress }
}
