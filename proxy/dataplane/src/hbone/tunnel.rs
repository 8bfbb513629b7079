//! One tunnel: checked, admitted, connected where its port is declared, answered, and then a connection
//! to the workload as any other.
//!
//! | answer | where |
//! |---|---|
//! | 200 | the tunnel is open |
//! | 400 | it is no CONNECT to an address of the workload |
//! | 401 | policy lets nothing of this caller pass |
//! | 503 | no snapshot, a limit of ours, or the application cannot be reached |

use std::{any::Any, convert::Infallible, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response, StatusCode, request::Parts};
use mesh::{Declared, Snapshot};
use observe::{
    Record,
    record::{Party, Protocol},
};
use tokio::{net::TcpStream, sync::watch, time::sleep};

use super::{
    Stream,
    connect::{self, Bad},
    entrance::To,
    server::{Place, Server},
};
use crate::{
    Refusal,
    accept::Connection,
    admit::AdmitError,
    authorize::PermittedTcp,
    capture::{Talk, declared, door, speak},
    engine::Refused,
    record,
    serve::{Decide, Drain},
    wire::Wire,
};

/// An authority in a record.
const AUTHORITY_BYTES: usize = 256;
/// How long requests under way may go on once policy lets nothing pass any more.
const GRACE: Duration = Duration::from_secs(1);

/// The mesh's, one after the other.
type Moments = watch::Receiver<Option<Arc<Snapshot>>>;

/// Why a tunnel is not opened, with its story.
struct Not {
    status: StatusCode,
    story: Box<Record>,
}

/// A tunnel that may be opened.
struct Opened {
    connection: Connection,
    /// The application, where it is reached already.
    application: Option<TcpStream>,
    permits: Permits,
}

/// Its places among the connections.
type Permits = Box<dyn Any + Send + Sync>;

/// Opens a tunnel and serves it to its end.
pub(super) async fn open<D: Decide>(
    server: Arc<Server<D>>,
    request: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
    place: Place<D>,
) {
    let (head, body) = request.into_parts();
    let drain = Arc::new(Drain::within(&server.drain));
    // What comes from now on is a change.
    let mut mesh = server.house.engine.mesh().cloned();
    if let Some(mesh) = &mut mesh {
        mesh.mark_unchanged();
    }
    let opened = tokio::select! {
        biased;
        _ = poll_fn(|cx| answer.poll_reset(cx)) => return server.cancelled(),
        opened = opening(&server, &head, &drain) => opened,
    };
    server.answered();
    let Opened { connection, application, permits } = match opened {
        Ok(opened) => opened,
        Err(not) => {
            let status = not.status;
            // Told before it is answered: whoever has the answer finds the record.
            server.house.recorder.record(*not.told(&head));
            let _ = answer.send_response(status_alone(status), true);
            return;
        }
    };
    let Ok(send) = answer.send_response(status_alone(StatusCode::OK), false) else { return };
    let stream = Stream::new(send, body).holding(Arc::new((place, permits)));
    let talk = Talk::new(Wire::Tunnel(Box::new(stream)), Arc::clone(&drain)).with_server(application);
    let house = Arc::clone(&server.house);
    tokio::select! {
        () = speak(house, connection.clone(), talk) => {}
        never = while_permitted(&*server.house.engine, &connection, (mesh, &drain)) => match never {},
    }
}

/// Everything before the answer.
async fn opening<D: Decide>(server: &Server<D>, head: &Parts, drain: &Arc<Drain>) -> Result<Opened, Not> {
    let (house, entrance) = (&server.house, &server.entrance);
    let address = connect::destination(head).map_err(|bad| Not::bad(server, bad))?;
    entrance.check(house, address).map_err(|bad| Not::bad(server, bad))?;
    let permits = permits(server)?;
    let connection = entrance.connection(house, &server.client, (address, drain));
    let connection = connection.ok_or_else(|| Not::limit(server, "no_captured_pods"))?;
    let application = application(server, &connection).await?;
    Ok(Opened { connection, application, permits })
}

/// Each tunnel is a connection among the others.
fn permits<D: Decide>(server: &Server<D>) -> Result<Permits, Not> {
    let limits = &server.house.limits;
    let of_pod = match &server.entrance.to {
        To::Pod(held) => {
            let permit = held.connections.enter(limits.connections_per_pod);
            Some(permit.ok_or_else(|| Not::limit(server, "connections_per_pod"))?)
        }
        To::Workload { .. } => None,
    };
    let permit = server.house.gauges.connection(limits);
    Ok(Box::new((permit.ok_or_else(|| Not::limit(server, "connections"))?, of_pod)))
}

/// Whether the caller may be heard; and the application, where its port is declared to be one of raw bytes:
/// that it is not there is told by the answer then.
async fn application<D: Decide>(
    server: &Server<D>,
    connection: &Connection,
) -> Result<Option<TcpStream>, Not> {
    let house = &server.house;
    let permitted = permitted(&*house.engine, connection).map_err(|refused| Not::refused(*refused))?;
    let is_raw = matches!(declared(&*house.engine, connection), Some(Declared::Tcp | Declared::Tls));
    let Some(permitted) = permitted.filter(|_| is_raw) else { return Ok(None) };
    let door = door(house, connection, &permitted);
    match house.forwarder.connect(&permitted, door.as_deref()).await {
        Ok(application) => Ok(Some(application)),
        Err(fault) => {
            let mut story = permitted.story;
            record::unreached(&mut story, fault);
            Err(Not { status: StatusCode::SERVICE_UNAVAILABLE, story })
        }
    }
}

/// Whether anything of the caller may pass; `Some`: raw bytes may.
///
/// # Errors
/// Nothing may, whatever it says.
fn permitted<D: Decide>(engine: &D, connection: &Connection) -> Result<Option<PermittedTcp>, Box<Refused>> {
    let declared = declared(engine, connection);
    if declared == Some(Declared::Http) && engine.admit(connection).is_ok() {
        return Ok(None);
    }
    match engine.decide_tcp(connection) {
        Ok(permitted) => Ok(Some(permitted)),
        Err(_) if declared != Some(Declared::Tcp) && engine.may_permit(connection) => Ok(None),
        Err(refused) => Err(refused),
    }
}

/// Ends the tunnel once policy lets nothing pass any more: what is in it may not have begun to speak.
async fn while_permitted<D: Decide>(
    engine: &D,
    connection: &Connection,
    (mesh, drain): (Option<Moments>, &Drain),
) -> Infallible {
    let Some(mut mesh) = mesh else { return std::future::pending().await };
    while mesh.changed().await.is_ok() {
        mesh.mark_unchanged();
        if permitted(engine, connection).is_err() {
            tracing::debug!(peer = %connection.peer, "a tunnel is permitted no longer");
            drain.begin();
            sleep(GRACE).await;
            drain.cut().cancel();
            break;
        }
    }
    std::future::pending().await
}

impl Not {
    /// Its story, with what was asked for.
    fn told(self, head: &Parts) -> Box<Record> {
        let Self { status, mut story } = self;
        story.status = Some(status.as_u16());
        head.method.as_str().clone_into(&mut story.method);
        let authority = head.uri.authority().map_or("", |authority| authority.as_str());
        story.authority = without_userinfo(authority).chars().take(AUTHORITY_BYTES).collect();
        tracing::debug!(%status, reason = %story.details, "tunnel refused");
        story
    }

    fn bad<D>(server: &Server<D>, bad: Bad) -> Self {
        let story = Self::story(server, bad.name(), "-");
        Self { status: StatusCode::BAD_REQUEST, story }
    }

    fn limit<D>(server: &Server<D>, limit: &'static str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, story: Self::story(server, limit, "UO") }
    }

    fn refused(refused: Refused) -> Self {
        let Refused { refusal, story, .. } = refused;
        let status = match refusal {
            Refusal::Dropped(
                AdmitError::NoSnapshot | AdmitError::UnknownWorkload(_) | AdmitError::BehindTunnel,
            ) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        };
        Self { status, story }
    }

    fn story<D>(server: &Server<D>, reason: &'static str, flags: &'static str) -> Box<Record> {
        let address = |address: SocketAddr| Party { address: Some(address), ..Party::default() };
        Box::new(Record {
            source: Party {
                principal: Some(server.client.peer.id.to_string().into()),
                ..address(server.entrance.peer)
            },
            destination: address(server.entrance.called),
            protocol: Protocol::Tcp,
            flags,
            details: reason.to_owned(),
            refused: Some(reason),
            token: "none",
            mutual_tls: true,
            ..Record::default()
        })
    }
}

fn status_alone(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// No `user:password@`.
fn without_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
