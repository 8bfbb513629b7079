//! One request and its response: decide, forward, judge, reply, record.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header, request::Parts};
use http_body::Body;
use hyper::body::Incoming;
use mesh::Toward;
use observe::record::{Protocol, Reporter};

use super::{
    Decide, House,
    answer::{Dropped, Form, answer_refused, close_where_due, end, refuse, refuse_early},
    body::ReplyBody,
    head::WithTokens,
    lasting::{Asked, Forbidden, Watch},
    line::{Line, Tunnel},
    story::Story,
    watched,
};
use crate::{
    Refusal,
    authorize::{Beyond, Permitted},
    forward::{Answered, BodyFault, ClientBody, Departure, Hints, Origin, Passage, Upstream},
    judge,
    limits::Exceeded,
    record,
    refusal::{TunnelFault, UpstreamFault},
    reply::ReplyContext,
};

/// One request of a client, to the response that goes back.
pub(crate) async fn exchange<D: Decide>(
    house: Arc<House<D>>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Dropped> {
    let response = answer(house, line, request).await;
    watched::responds();
    response
}

async fn answer<D: Decide>(
    house: Arc<House<D>>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Dropped> {
    let (mut parts, incoming) = request.into_parts();
    let form = Form {
        version: parts.version,
        head_only: parts.method == Method::HEAD,
        has_body: !incoming.is_end_stream(),
    };
    if form.version == Version::HTTP_2 {
        line.link.begin();
    }
    let mut story = Story::begin(Arc::clone(&line), Arc::clone(&house.recorder), form.version);
    if let Err(exceeded) = enter(&house, &mut story, &parts) {
        let context = ReplyContext::of(&parts.headers);
        return refuse_early(story, &parts, exceeded, &context, form);
    }
    parts.extensions.clear();
    let asked = Asked::keep(&parts, story.began(), &house.engine, &line);
    let permitted = match house.engine.decide(&line.connection, parts).await {
        Ok(permitted) => permitted,
        Err(refused) => return answer_refused(&house, story, *refused, form).await,
    };
    let watch = asked.map(|asked| asked.watch(&permitted));
    forward(&house, &line, (story, watch), permitted, incoming, form).await
}

/// Limits that need no decision.
fn enter<D>(house: &House<D>, story: &mut Story, parts: &Parts) -> Result<(), Exceeded> {
    story.hold(house.gauges.request(&house.limits)?);
    if parts.version != Version::HTTP_2 {
        return Ok(()); // The framing guard has looked at the head.
    }
    if parts.headers.len() > house.limits.header_count {
        return Err(Exceeded::HeaderCount);
    }
    // As HTTP/2 counts (RFC 9113 §10.5.1), with the target in place of a request line.
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    if target + headers.sum::<usize>() > house.limits.head_bytes {
        return Err(Exceeded::HeadBytes);
    }
    Ok(())
}

async fn forward<D: Decide>(
    house: &House<D>,
    line: &Line,
    (mut story, mut watch): (Story, Option<Watch>),
    mut permitted: Permitted,
    incoming: Incoming,
    form: Form,
) -> Result<Response<ReplyBody>, Dropped> {
    story.continue_with(std::mem::take(&mut permitted.story));
    if let Some(workload) = &permitted.workload {
        match house.gauges.of_workload(&workload.name) {
            Ok(permit) => story.hold(permit),
            Err(exceeded) => {
                let refusal = Refusal::Limit(exceeded);
                return Ok(refuse(story, &refusal, &permitted.reply, form));
            }
        }
    }
    if let Some(delay) = permitted.delay {
        tokio::time::sleep(delay).await;
        if let Some(watch) = &mut watch
            && let Err(forbidden) = watch.judged().await
        {
            return end(house, story, forbidden, &permitted.reply, form).await;
        }
    }
    enter_pod(house, line, &mut story, &mut permitted, form);
    if let Err(fault) = depart(house, line, &mut story, &mut permitted) {
        return Ok(refuse(story, &fault.into(), &permitted.reply, form));
    }
    if form.version != Version::HTTP_11 {
        permitted.upgrade = None;
    }
    let grpc = story.record().protocol == Protocol::Grpc;
    let body = form.has_body.then(|| {
        let link = Arc::clone(story.link());
        let body = ClientBody::new(incoming, link, &house.limits, grpc, permitted.workload.clone());
        story.watch(Arc::clone(body.flow()));
        body
    });
    let body = match without_contradiction(body, form).await {
        Ok(body) => body,
        Err(fault) => return Ok(refuse(story, &fault.into(), &permitted.reply, form)),
    };
    match carry_out(house, &mut permitted, body, watch.as_mut()).await {
        Err(Unanswered::Refused(refusal)) => Ok(refuse(story, &refusal, &permitted.reply, form)),
        Err(Unanswered::Forbidden(forbidden)) => end(house, story, forbidden, &permitted.reply, form).await,
        Ok(Answered::Response { response, lease, deadline }) => {
            let (head, incoming) = response.into_parts();
            let head = release(head, &permitted, &mut story, form);
            let idle = Duration::from_millis(house.limits.response_idle_timeout_ms);
            let body = ReplyBody::streamed(incoming, lease, story, (idle, deadline), grpc, watch);
            Ok(Response::from_parts(head, body))
        }
        Ok(Answered::Upgraded { head, upstream, first }) => {
            Ok(upgrade(line, (story, watch), head, &permitted, (upstream, first), form))
        }
    }
}

/// Why nothing of an upstream's answer is given.
enum Unanswered {
    Refused(Refusal),
    Forbidden(Forbidden),
}

/// Forwards for as long as it is permitted: an upload ends with the change that forbids it, and an answer that
/// came after one is not given.
async fn carry_out<D: Decide>(
    house: &House<D>,
    permitted: &mut Permitted,
    body: Option<ClientBody>,
    watch: Option<&mut Watch>,
) -> Result<Answered, Unanswered> {
    let uploads = body.is_some();
    // In place: it is large.
    let mut work = pin!(house.forwarder.forward(permitted, body));
    let Some(watch) = watch else { return work.await.map_err(Unanswered::Refused) };
    let answered = if uploads {
        tokio::select! {
            biased;
            forbidden = watch.forbidden() => return Err(Unanswered::Forbidden(forbidden)),
            answered = &mut work => answered,
        }
    } else {
        work.await
    };
    let answered = answered.map_err(Unanswered::Refused)?;
    watch.judged().await.map_err(Unanswered::Forbidden)?;
    Ok(answered)
}

/// The way into a captured pod, where the request is for one.
fn enter_pod<D>(house: &House<D>, line: &Line, story: &mut Story, permitted: &mut Permitted, form: Form) {
    permitted.inside = match &line.connection.captured {
        Some(captured) => {
            let http2 = Some(form.version == Version::HTTP_2);
            Some(Passage { door: Arc::clone(&captured.door), http2 })
        }
        None => house.pods.get().and_then(|pods| pods.passage(permitted)),
    };
    if let Some(passage) = &permitted.inside {
        story.record().upstream = Some(passage.door.address);
    }
}

/// The way to a destination that has a proxy of its own. Who has a certificate goes there with it, or not at
/// all.
fn depart<D: Decide>(
    house: &House<D>,
    line: &Line,
    story: &mut Story,
    permitted: &mut Permitted,
) -> Result<(), UpstreamFault> {
    let Some(beyond) = permitted.beyond.take() else { return Ok(()) };
    if permitted.inside.is_some() {
        return Ok(());
    }
    let Beyond { toward, sni, with_tokens } = *beyond;
    let own = line.connection.own.as_ref();
    let tunnel = match (toward, own) {
        (Toward::Plain, _) => return Ok(()),
        (Toward::Tunnel(tunnel), Some(_)) => tunnel,
        (Toward::Contested, Some(_)) => return Err(TunnelFault::Contested.into()),
        (Toward::Tunnel(tunnel), None) if tunnel.workload.tunnel.is_some() => {
            return Err(TunnelFault::Handshake("no_own_certificate").into());
        }
        // No certificates in the whole house: everything is plaintext.
        (_, None) => return Ok(()),
    };
    let (Some(own), Some(snapshots)) = (own, house.engine.mesh()) else {
        return Err(TunnelFault::Handshake("no_snapshot").into());
    };
    // The destination's own proxy reports it as the destination's.
    story.record().reporter = Reporter::Source;
    if let Some(WithTokens { target, headers }) = with_tokens.map(|kept| *kept) {
        (permitted.target, permitted.headers) = (target, headers);
    }
    let (own, snapshots) = (Arc::clone(own), snapshots.clone());
    let departure = Departure { own, origin: Origin::Proxy, tunnel, sni, snapshots, hints: Hints::default() };
    story.record().upstream = Some(departure.at());
    permitted.departure = Some(departure);
    Ok(())
}

/// HTTP/2 may declare a length of nothing and leave the stream open: it is no whole request before
/// the stream has ended so. Otherwise it would be served upstream, and refused for the data that
/// contradict it (RFC 9113 §8.1.1).
async fn without_contradiction(
    mut body: Option<ClientBody>,
    form: Form,
) -> Result<Option<ClientBody>, BodyFault> {
    let empty = |body: &ClientBody| form.version == Version::HTTP_2 && body.size_hint().exact() == Some(0);
    let Some(mut declared) = body.take_if(|body| empty(body)) else { return Ok(body) };
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut declared).poll_frame(cx)).await {
        frame?;
    }
    Ok(None)
}

/// Judges the response head and words it for this client.
fn release(
    head: http::response::Parts,
    permitted: &Permitted,
    story: &mut Story,
    form: Form,
) -> http::response::Parts {
    let released = judge::release(head, permitted.response_headers.as_deref(), &permitted.cors);
    let mut head = released.into_parts();
    head.version = Version::HTTP_11;
    head.extensions.clear();
    record::released(story.record(), &head);
    close_where_due(&mut head.headers, story, form, false);
    head
}

/// Answers 101; the connection carries bytes from then on, as part of the same request's story.
fn upgrade(
    line: &Line,
    (mut story, watch): (Story, Option<Watch>),
    head: http::response::Parts,
    permitted: &Permitted,
    (upstream, first): (Upstream, Bytes),
    form: Form,
) -> Response<ReplyBody> {
    let protocol = head.headers.get(header::UPGRADE).cloned();
    let mut head = release(head, permitted, &mut story, form);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        head.headers.insert(header::UPGRADE, protocol);
    }
    line.set_tunnel(Tunnel { upstream, first, story, watch });
    Response::from_parts(head, ReplyBody::Whole(None, None))
}
