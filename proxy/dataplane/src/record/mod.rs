//! The whole story of a request, once: filled as it goes its way, told at its end.

mod labels;
mod tcp;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderMap, Method, Uri, Version, response};
use mesh::{Snapshot, Workload};
use observe::{
    Record,
    record::{Protocol, Reporter},
};
use policy::Decision;

use crate::{
    Refusal, accept::Connection, classify::Classified, reply, serve::head::REQUEST_ID, serve::head::Request,
};

pub(crate) use labels::{Labels, service_of_host};
pub(crate) use tcp::{carried, from_host, meanwhile, opened, outside, unreached};

/// Where stories go. Implementations must not block: a full queue drops and counts (where audit is
/// not mandatory).
pub trait Recorder: Send + Sync {
    /// Takes the story of a finished request.
    fn record(&self, record: Record);

    /// A raw connection opens, whose story so far this is; its end is told by [`Recorder::record`].
    fn opened(&self, _: &Record) {}

    /// Bytes of an open raw connection since this was told last: from the client, and to it.
    fn moved(&self, _: &Record, _: (u64, u64)) {}
}

/// A story's beginning: what the connection tells.
pub(crate) fn begin(connection: &Connection, version: Version) -> Box<Record> {
    let mut story = Box::new(Record::default());
    story.http_version = match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    story.flags = "-";
    story.token = "none";
    story.source.address = Some(connection.peer);
    story.source.principal = connection.principal.clone();
    story.mutual_tls = connection.mutual_tls;
    let is_pod = |captured: &Arc<crate::capture::Captured>| captured.caller().is_some();
    story.from_kernel = connection.identity.is_some() && connection.captured.as_ref().is_some_and(is_pod);
    story
}

/// A head that was refused before it had a canonical form.
pub(crate) fn raw(story: &mut Record, method: &Method, uri: &Uri, headers_host: Option<&str>) {
    /// A refused head may be of any length; its story is not.
    const BYTES: usize = 1024;
    let cut = |text: &str| text.chars().take(BYTES).collect::<String>();
    story.method = cut(method.as_str());
    story.path = cut(uri.path());
    story.query = uri.query().map(cut);
    // No `user:password@`.
    let host = headers_host.unwrap_or_default();
    story.authority = cut(host.rsplit_once('@').map_or(host, |(_, host)| host));
}

/// What the canonical head tells.
pub(crate) fn head(story: &mut Record, request: &Request) {
    request.method().as_str().clone_into(&mut story.method);
    request.authority().clone_into(&mut story.authority);
    target(story, request);
    if let Some(id) = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()) {
        id.clone_into(&mut story.request_id);
    }
    if reply::Grpc::of(request.headers()) == reply::Grpc::Yes {
        story.protocol = Protocol::Grpc;
    }
}

/// The target, once more after a rewrite.
pub(crate) fn target(story: &mut Record, request: &Request) {
    if story.path != request.target().path() {
        request.target().path().clone_into(&mut story.path);
    }
    if story.query.as_deref() != request.target().query() {
        story.query = request.target().query().map(str::to_owned);
    }
}

/// The caller of a workload's own entry: the pod that the kernel names, or found by its address.
pub(crate) fn source_at(
    story: &mut Record,
    labels: &Labels,
    snapshot: &Arc<Snapshot>,
    connection: &Connection,
) {
    let kernel = connection.captured.as_ref().and_then(|captured| captured.caller());
    let workload = match kernel {
        Some(name) => snapshot.workload(name),
        None => snapshot.workload_at(connection.peer.ip()),
    };
    let Some(workload) = workload else { return };
    story.source.workload = Some(Arc::clone(&labels.card(snapshot, workload).labels));
}

/// The gateway as the source of what it sends on.
pub(crate) fn source_gateway(
    story: &mut Record,
    labels: &Labels,
    snapshot: &Arc<Snapshot>,
    gateway: Option<&Arc<Workload>>,
) {
    story.reporter = Reporter::Source;
    if let Some(gateway) = gateway {
        let card = labels.card(snapshot, gateway);
        story.source.workload = Some(Arc::clone(&card.labels));
        story.source.principal = Some(Arc::clone(&card.principal));
    }
}

/// The destination workload, and the service it was called by.
pub(crate) fn destination(
    story: &mut Record,
    labels: &Labels,
    snapshot: &Arc<Snapshot>,
    (workload, port): (&Arc<Workload>, u16),
    host: Option<&Arc<str>>,
) {
    let card = labels.card(snapshot, workload);
    story.reporter = Reporter::Destination;
    story.service = card.service(host);
    story.destination.workload = Some(Arc::clone(&card.labels));
    story.destination.principal = Some(Arc::clone(&card.principal));
    story.destination.address = Some((workload.ip, port).into());
}

/// The address that was called, where it is a captured pod's own.
pub(crate) fn called(story: &mut Record, connection: &Connection) {
    if let Some(address) = connection.called() {
        story.destination.address = Some(address);
    }
}

/// What identify and classify found.
pub(crate) fn classified(story: &mut Record, classified: &Classified) {
    let identified = classified.identified();
    if identified.identity().is_some() {
        story.token = "ok";
        story.issuer = identified.issuer().cloned();
    }
    story.interaction = classified.interaction().map(|found| (found.kind.as_str(), found.resource));
    target(story, identified.request());
}

/// A refusal's part of the story; the answer's status and size come with [`answered`].
pub(crate) fn refused(story: &mut Record, refusal: &Refusal) {
    story.flags = reply::flags(refusal);
    story.details = reply::details(refusal).into_owned();
    story.refused = reply::refused(refusal);
    match refusal {
        Refusal::Denied(decision) => decided(story, (**decision).clone()),
        Refusal::Credentials(rejection) => {
            story.token = rejection.reason.name();
            undecided(story);
        }
        Refusal::Head(_) | Refusal::Target(_) => undecided(story),
        _ => {}
    }
}

/// Refused on the way from the gateway to the destination: the gateway's policies let it pass, but
/// nobody may read that as a request allowed. AUDIT rules that matched stay told.
fn undecided(story: &mut Record) {
    story.decision = story.decision.take().filter(|before| !before.audited.is_empty()).map(|mut before| {
        before.verdict = policy::Verdict::Deny;
        before.rule = None;
        before
    });
}

/// The deciding policies' word; AUDIT rules that matched at the gateway before stay told.
pub(crate) fn decided(story: &mut Record, mut decision: Decision) {
    if let Some(mut before) = story.decision.take().filter(|before| !before.audited.is_empty()) {
        before.audited.append(&mut decision.audited);
        decision.audited = before.audited;
    }
    story.decision = Some(decision);
}

/// An answer of ours: its status and size.
pub fn answered(story: &mut Record, response: &http::Response<bytes::Bytes>) {
    story.status = Some(response.status().as_u16());
    story.grpc_status = grpc_status(response.headers());
    story.response_bytes = u64::try_from(response.body().len()).unwrap_or(u64::MAX);
}

/// An upstream's answer that was released: its status. Bytes and trailers are the server side's.
pub fn released(story: &mut Record, head: &response::Parts) {
    story.status = Some(head.status.as_u16());
    story.grpc_status = grpc_status(&head.headers);
    "via_upstream".clone_into(&mut story.details);
}

/// `grpc-status` of a head or of trailers.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// The story of an exchange that failed after it was permitted: an upstream fault, a limit.
pub fn failed(story: &mut Record, refusal: &Refusal, response: &http::Response<bytes::Bytes>) {
    refused(story, refusal);
    answered(story, response);
}
