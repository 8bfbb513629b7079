//! A captured pod's connection to somewhere that is not a captured pod: its bytes, as they are, from
//! the pod's own namespace.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh::Snapshot;
use tokio::{net::TcpStream, time::Instant};

use super::{
    arrive::ready,
    pods::{Held, Pods},
    refuse::reset,
};
use crate::{
    authorize::PermittedOutside,
    forward::{self, leave},
    record,
    refusal::UpstreamFault,
    serve::{Decide, House},
};

/// Carries the connection to its end.
pub(super) async fn carry<D: Decide>(
    house: &Arc<House<D>>,
    pods: &Pods,
    held: &Arc<Held>,
    permitted: PermittedOutside,
    snapshot: &Arc<Snapshot>,
    socket: TcpStream,
) {
    let began = Instant::now();
    let address: SocketAddr = permitted.address();
    let mut story = record::outside((&held.pod, snapshot), address, &pods.labels);
    ready(&socket);
    let limit = Duration::from_millis(house.limits.connect_timeout_ms);
    match leave(&pods.kernel, &permitted, limit).await {
        Ok(server) => {
            let stop = async {
                held.drain.cut().cancelled().await;
                "drain_timeout"
            };
            let carried = forward::carry(socket, &[], server, stop).await;
            record::carried(&mut story, carried);
        }
        Err(fault) => {
            reset(socket);
            record::unreached(&mut story, fault);
            if fault == UpstreamFault::ConnectTimeout {
                tracing::debug!(%address, "a captured pod's destination does not answer");
            }
        }
    }
    story.duration = began.elapsed();
    house.recorder.record(*story);
}
