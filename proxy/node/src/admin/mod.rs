//! The operators' address: `/metrics`, `/healthz`, `/readyz`, `/config_dump`.

mod capture;
mod dump;
mod metrics;
mod turn;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use dataplane::secure::Tls;
use identity::Authenticator;
use mesh::{Snapshot, files::SourceStatus};
use observe::Exposition;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{capture::Report, problems, workloads::Workloads};

pub(crate) use turn::Turn;

/// What the admin pages tell of.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(crate) status: watch::Receiver<SourceStatus>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) recorder: Arc<observe::Recorder>,
    pub(crate) listeners: Arc<Vec<(String, SocketAddr)>>,
    pub(crate) certificates: Arc<Vec<(String, Arc<Tls>)>>,
    pub(crate) capture: Option<Report>,
    pub(crate) workloads: Workloads,
    pub(crate) stop: CancellationToken,
}

/// Serves the pages until told to stop, or until another proxy has taken over and wants the address.
pub(crate) async fn serve(turn: Turn, told: Told, stop: CancellationToken) {
    let Some(listener) = turn.listener(&stop).await else { return };
    let capture = told.capture.clone();
    let over = async move {
        let superseded = async {
            match &capture {
                Some(report) => report.superseded().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = superseded => {}
        }
    };
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/stats/prometheus", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/config_dump", get(|State(told): State<Told>| async move { Json(dump::dump(&told)) }))
        .with_state(told);
    let served = axum::serve(listener, pages).with_graceful_shutdown(over).await;
    if let Err(error) = served {
        tracing::error!(%error, "the admin server ended");
    }
}

async fn metrics_page(State(told): State<Told>) -> Response {
    match metrics::page(&told) {
        Ok(text) => ([(header::CONTENT_TYPE, Exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// 200 while there is a snapshot to judge by, every workload with mTLS has had a certificate and, where
/// pods are captured, those that the agent told of at first are served; else 503. An agent that goes is told here (`capture.agent: false`), but what
/// is served goes on being served and so does readiness. A refused manifest is told here with file,
/// line and field (`current: false`), but the last good policy goes on holding and so does
/// readiness: a mistyped file must not take every gateway out of service (invariant 5).
async fn ready(State(told): State<Told>) -> Response {
    let status = told.status.borrow().clone();
    let version = told.snapshots.borrow().as_ref().map(|snapshot| snapshot.version);
    let draining = told.stop.is_cancelled();
    let capture = told.capture.as_ref().map(Report::standing);
    let complete = capture.as_ref().is_none_or(|capture| capture.complete);
    let ready = version.is_some() && complete && told.workloads.are_ready() && !draining;
    let body: Value = json!({
        "ready": ready,
        "current": status.problems.is_empty(),
        "draining": draining,
        "snapshot": version,
        "problems": status.problems.iter().map(problems::json).collect::<Vec<_>>(),
        "certificates": certificates(&told),
        "issuers": told.authenticator.issuers(),
        "capture": capture,
        "workloads": told.workloads.json(),
    });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

/// How each TLS listener's certificate stands: a pair that cannot be used leaves the old one in service.
fn certificates(told: &Told) -> Vec<Value> {
    let one = |(listener, tls): &(String, Arc<Tls>)| {
        let status = tls.status();
        json!({
            "listener": listener,
            "certificate": status.certificate,
            "reloads": status.reloads,
            "problem": status.problem,
        })
    };
    told.certificates.iter().map(one).collect()
}
