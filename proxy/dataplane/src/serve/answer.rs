//! Answers of our own: to what is refused before it is forwarded, or is permitted no longer.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header, request::Parts};
use identity::RejectionReason;
use tokio::time::Instant;

use super::{Decide, House, body::ReplyBody, lasting::Forbidden, story::Story};
use crate::{
    Refusal,
    engine::Refused,
    limits::Exceeded,
    record,
    reply::{self, ReplyContext},
};

/// The connection is to be dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("dropped by layer 4 policy")]
pub(crate) struct Dropped;

/// What an answer's form depends on, beside its words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) version: Version,
    pub(super) head_only: bool,
    pub(super) has_body: bool,
}

pub(super) fn refuse_early(
    mut story: Story,
    parts: &Parts,
    exceeded: Exceeded,
    context: &ReplyContext,
    form: Form,
) -> Result<Response<ReplyBody>, Dropped> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    record::raw(story.record(), &parts.method, &parts.uri, host);
    Ok(refuse(story, &Refusal::Limit(exceeded), context, form))
}

/// The answer to a refusal of the decision, which has told it to the record already.
pub(super) async fn answer_refused<D: Decide>(
    house: &House<D>,
    mut story: Story,
    refused: Refused,
    form: Form,
) -> Result<Response<ReplyBody>, Dropped> {
    let Refused { refusal, reply, story: record } = refused;
    story.continue_with(record);
    if refusal.drops_connection() {
        if story.captured() {
            story.link().abort();
        }
        story.complete();
        return Err(Dropped);
    }
    if let Refusal::Answered(answer) = &refusal
        && let Some(delay) = answer.delay
    {
        tokio::time::sleep(delay).await;
    }
    if let Refusal::Credentials(rejection) = &refusal
        && rejection.reason == RejectionReason::VerificationFails
    {
        let wait = house.pace.wait(&place(&mut story), Instant::now());
        if let Some(place) = house.gauges.waiting().filter(|_| !wait.is_zero()) {
            story.release();
            story.hold(place);
            tokio::time::sleep(wait).await;
        }
    }
    let response = reply::render(&refusal, &reply);
    record::answered(story.record(), &response);
    Ok(ours(response, story, form))
}

/// The workload whose rules refused; a gateway's own, where the request came no further.
fn place(story: &mut Story) -> String {
    match &story.record().destination.workload {
        Some(workload) => format!("{}/{}", workload.namespace, workload.workload),
        None => String::new(),
    }
}

/// The answer to what went wrong after or before a decision.
pub(super) fn refuse(
    mut story: Story,
    refusal: &Refusal,
    context: &ReplyContext,
    form: Form,
) -> Response<ReplyBody> {
    let response = reply::render(refusal, context);
    record::failed(story.record(), refusal, &response);
    ours(response, story, form)
}

/// An answer of ours on its way. A body that nobody reads is not waited for: the connection closes.
fn ours(response: Response<Bytes>, mut story: Story, form: Form) -> Response<ReplyBody> {
    let (mut parts, body) = response.into_parts();
    close_where_due(&mut parts.headers, &story, form, form.has_body);
    if form.head_only {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        story.record().response_bytes = 0;
        return Response::from_parts(parts, ReplyBody::whole(Bytes::new(), story));
    }
    Response::from_parts(parts, ReplyBody::whole(body, story))
}

/// `Connection: close` where this is an HTTP/1 connection's last response: HTTP/1.0, draining, or
/// a request body left unread.
pub(super) fn close_where_due(headers: &mut HeaderMap, story: &Story, form: Form, unread: bool) {
    let http1 = form.version != Version::HTTP_2;
    if http1 && (unread || form.version == Version::HTTP_10 || story.link().draining().is_some()) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The answer to a request that is permitted no longer.
pub(super) async fn end<D: Decide>(
    house: &House<D>,
    story: Story,
    forbidden: Forbidden,
    context: &ReplyContext,
    form: Form,
) -> Result<Response<ReplyBody>, Dropped> {
    match forbidden {
        Forbidden::Refused(refused) => answer_refused(house, story, *refused, form).await,
        Forbidden::Elsewhere => {
            let refusal = Refusal::NoDestination(StatusCode::SERVICE_UNAVAILABLE);
            Ok(refuse(story, &refusal, context, form))
        }
    }
}
