//! Raw TCP: admitted, then asked of the policies without a request.

use mesh::Toward;
use observe::{Record, record::Protocol};
use policy::Step;

use super::{Engine, Refused, Trace};
use crate::{
    Refusal,
    accept::Connection,
    admit::{self, AdmitError, Place},
    authorize::{self, Caller, PermittedTcp},
    record,
    reply::ReplyContext,
};

impl Engine {
    /// The whole decision about a raw TCP connection to a workload.
    ///
    /// # Errors
    /// [`Refused`] with [`Refusal::Dropped`]: the connection is closed.
    pub fn decide_tcp(&self, connection: &Connection) -> Result<PermittedTcp, Box<Refused>> {
        self.walk_tcp(connection, Trace::live(self.settings.keep_reasons)).0
    }

    /// [`Engine::decide_tcp`], with every step.
    pub fn explain_tcp(&self, connection: &Connection) -> (Result<PermittedTcp, Box<Refused>>, Vec<Step>) {
        self.walk_tcp(connection, Trace::everything())
    }

    /// Whether anything that the caller may say on a connection to a workload could pass; asked before its
    /// first word.
    #[must_use]
    pub fn may_permit(&self, connection: &Connection) -> bool {
        let Ok(admitted) = admit::admit(connection, self.newest()) else { return false };
        let Place::Workload { workload, port } = admitted.place() else { return false };
        authorize::may_permit(caller(connection), (workload, *port))
    }

    fn walk_tcp(
        &self,
        connection: &Connection,
        mut trace: Trace,
    ) -> (Result<PermittedTcp, Box<Refused>>, Vec<Step>) {
        let mut story = record::begin(connection, http::Version::HTTP_11);
        story.protocol = Protocol::Tcp;
        story.http_version = "";
        story.both_sides = story.from_kernel;
        let result = self.rooms_tcp(connection, &mut story, &mut trace);
        let steps = trace.into_steps();
        let result = match result {
            Ok(permitted) => {
                story.upstream = Some(permitted.upstream());
                story.decision = permitted.decision().cloned();
                Ok(permitted.with_story(story))
            }
            Err(error) => {
                let refusal = Refusal::Dropped(error);
                record::refused(&mut story, &refusal);
                if self.settings.keep_reasons {
                    story.steps.clone_from(&steps);
                }
                Err(Box::new(Refused { refusal, reply: ReplyContext::default(), story }))
            }
        };
        (result, steps)
    }

    fn rooms_tcp(
        &self,
        connection: &Connection,
        story: &mut Record,
        trace: &mut Trace,
    ) -> Result<PermittedTcp, AdmitError> {
        let admitted = admit::admit(connection, self.newest())?;
        let snapshot = admitted.snapshot();
        story.snapshot = snapshot.version;
        let Place::Workload { workload, port } = admitted.place() else {
            return Err(AdmitError::NotHttp);
        };
        record::source_at(story, &self.labels, snapshot, connection);
        record::destination(story, &self.labels, snapshot, (workload, *port), None);
        record::called(story, connection);
        let permitted = authorize::authorize_tcp(caller(connection), (workload, *port), trace);
        let permitted = permitted.map_err(|(error, decision)| {
            story.decision = Some(*decision);
            error
        })?;
        let is_elsewhere = connection.captured.is_none() && workload.tunnel.is_some();
        if is_elsewhere && !matches!(snapshot.toward(permitted.upstream(), Some(workload)), Toward::Plain) {
            return Err(AdmitError::BehindTunnel);
        }
        Ok(permitted)
    }
}

fn caller(connection: &Connection) -> Caller<'_> {
    let ip = connection.peer.ip().to_canonical();
    Caller {
        ip,
        remote_ip: ip,
        identity: connection.identity.as_ref(),
        sni: connection.sni.as_deref(),
        tls: connection.tls,
        called: connection.called(),
    }
}
