//! The stories of raw TCP connections.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use mesh::Snapshot;
use observe::{
    Record,
    record::{Party, Protocol, Reporter},
};

use tokio::time::sleep;

use super::{Labels, Recorder, service_of_host};
use crate::{
    Refusal,
    capture::Pod,
    forward::{Carried, Counts, End},
    refusal::UpstreamFault,
    reply,
};

/// How often a connection that lasts is told of, as Istio's own proxies do (`tcp_reporting_duration`).
const TELL_EVERY: Duration = Duration::from_secs(15);

fn begin(peer: SocketAddr) -> Box<Record> {
    let mut story = Box::new(Record::default());
    story.protocol = Protocol::Tcp;
    story.flags = "-";
    story.token = "none";
    story.source.address = Some(peer);
    story
}

/// A captured pod's connection to somewhere that is not a captured pod.
pub(crate) fn outside(
    (pod, snapshot): (&Arc<Pod>, &Arc<Snapshot>),
    address: SocketAddr,
    labels: &Labels,
) -> Box<Record> {
    let own = pod.addresses.iter().find(|ip| ip.is_ipv4() == address.is_ipv4());
    let own = own.or_else(|| pod.addresses.first()).copied().unwrap_or(address.ip());
    let mut story = begin(SocketAddr::new(own, 0));
    story.reporter = Reporter::Source;
    story.snapshot = snapshot.version;
    story.upstream = Some(address);
    if let Some(workload) = snapshot.workload(&pod.name) {
        let card = labels.card(snapshot, workload);
        story.source.workload = Some(Arc::clone(&card.labels));
        story.source.principal = Some(Arc::clone(&card.principal));
        story.from_kernel = true;
    }
    story.destination.address = Some(address);
    if let Some(workload) = snapshot.workload_at(address.ip()) {
        let card = labels.card(snapshot, workload);
        story.destination.workload = Some(Arc::clone(&card.labels));
        story.service = card.service(None);
    } else if let Some(service) = snapshot.service_at(address.ip(), address.port()) {
        story.service = service_of_host(&service.host);
    }
    story
}

/// The node's own connection into a captured pod.
pub(crate) fn from_host(peer: SocketAddr, address: SocketAddr) -> Box<Record> {
    let mut story = begin(peer);
    "host".clone_into(&mut story.details);
    story.destination = Party { address: Some(address), ..Party::default() };
    story.upstream = Some(address);
    story
}

/// A permitted connection opens: both of its ends are there.
pub(crate) fn opened(recorder: &dyn Recorder, story: &mut Record) {
    recorder.opened(story);
    story.opened = true;
}

/// Waits, and tells meanwhile of what has gone through.
pub(crate) async fn meanwhile<T>(
    told: (&dyn Recorder, &Record),
    counts: &Counts,
    stop: impl Future<Output = T>,
) -> T {
    each(TELL_EVERY, told, counts, stop).await
}

async fn each<T>(
    pause: Duration,
    (recorder, story): (&dyn Recorder, &Record),
    counts: &Counts,
    stop: impl Future<Output = T>,
) -> T {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            why = &mut stop => return why,
            () = sleep(pause) => recorder.moved(story, counts.news()),
        }
    }
}

/// What went through, and how it ended.
pub(crate) fn carried(story: &mut Record, carried: Carried, counts: &Counts) {
    (story.request_bytes, story.response_bytes) = (carried.up, carried.down);
    story.counted_bytes = counts.counted();
    let (flags, details) = match carried.end {
        End::Closed => ("-", "closed"),
        End::ClientReset => ("DC", "downstream_remote_disconnect"),
        End::ServerReset => ("UC", "upstream_remote_disconnect"),
        End::Cut("policy_changed") => ("-", "policy_changed"),
        End::Cut(why) => ("DC", why),
    };
    story.flags = flags;
    details.clone_into(&mut story.details);
}

/// The other side could not be reached.
pub(crate) fn unreached(story: &mut Record, fault: UpstreamFault) {
    let refusal = Refusal::Upstream(fault);
    story.flags = reply::flags(&refusal);
    story.details = reply::details(&refusal).into_owned();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use tokio::{io::AsyncWriteExt, sync::Notify};

    use super::*;

    #[derive(Default)]
    struct Told {
        bytes: Mutex<Vec<(u64, u64)>>,
        more: Notify,
    }

    impl Recorder for Told {
        fn record(&self, _: Record) {}

        fn moved(&self, _: &Record, bytes: (u64, u64)) {
            self.bytes.lock().unwrap().push(bytes);
            self.more.notify_one();
        }
    }

    async fn pair() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (one, other) = tokio::join!(connecting, listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_are_told_while_the_connection_lasts_and_each_once() {
        let (mut client, from) = pair().await;
        let (to, _server) = pair().await;
        let (told, story, counts) = (Told::default(), Record::default(), Counts::default());
        let over = Notify::new();
        let stop = async {
            over.notified().await;
            "over"
        };
        let pause = Duration::from_millis(5);
        let carrying = crate::forward::carry(from, to, &counts, each(pause, (&told, &story), &counts, stop));
        let talking = async {
            for _ in 0..3 {
                let before: u64 = told.bytes.lock().unwrap().iter().map(|(up, _)| up).sum();
                client.write_all(b"12345").await.unwrap();
                let sum = || told.bytes.lock().unwrap().iter().map(|(up, _)| up).sum::<u64>();
                while sum() < before + 5 {
                    told.more.notified().await;
                }
            }
            over.notify_one();
        };
        let (carried, ()) = tokio::join!(carrying, talking);
        let sum: u64 = told.bytes.lock().unwrap().iter().map(|(up, _)| up).sum();
        assert_eq!((carried.up, sum, counts.counted().0), (15, 15, 15));
    }
}
