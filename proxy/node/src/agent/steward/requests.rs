//! What connections ask for. Everything asked is checked against what is enrolled now.

use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::{Answer, Order, Steward};
use crate::agent::{
    fleet::ProxyId,
    protocol::{Ask, FamilyListeners, MAX_STOCK, Peer, PodKey, Refusal, Reply, SocketKind, VERSION, Welcome},
};

/// How long listeners wait to be put in service.
const PENDING: Duration = Duration::from_secs(10);
/// Most pods of one proxy whose listeners wait.
const MAX_PENDING: usize = 256;

/// Listeners that a proxy was given and that are not in service yet. Where it does not say that it
/// serves them they are closed here; were they kept, connections to a dead proxy would wait in them.
pub(super) struct Pending {
    v4: FamilyListeners,
    v6: Option<FamilyListeners>,
    at: Instant,
}

fn refused(reason: Refusal, detail: impl Into<String>) -> Answer {
    Reply::Refused { reason, detail: detail.into() }.into()
}

impl Steward {
    pub(super) fn carry_out(&mut self, order: Order) {
        match order {
            Order::Join { proxy, peer, started, serving, superseded, answer } => {
                self.join(proxy, peer, (started, serving), superseded, answer);
            }
            Order::Ask { proxy, ask, answer } => {
                let answers = self.answer(proxy, &ask);
                self.tally.refused +=
                    answers.iter().filter(|answer| matches!(answer.reply, Reply::Refused { .. })).count()
                        as u64;
                // One who has gone meanwhile needs no answer.
                let _ = answer.send(answers);
            }
            Order::Part { proxy, admission } => {
                self.fleet.part(proxy);
                self.superseded.remove(&proxy);
                self.pending.retain(|(owner, _), _| *owner != proxy);
                drop(admission);
                self.supersede();
            }
            Order::Figures(answer) => {
                let _ = answer.send(self.figures());
            }
            // The loop has seen to these.
            Order::Look | Order::Stop => {}
        }
    }

    fn join(
        &mut self,
        proxy: ProxyId,
        peer: Peer,
        (started, serving): (u64, Vec<PodKey>),
        superseded: watch::Sender<bool>,
        answer: oneshot::Sender<Answer>,
    ) {
        let enrolled = |key: &PodKey| self.pods.get(&key.slot).is_some_and(|pod| pod.key == *key);
        let serving: Vec<PodKey> = serving.into_iter().filter(enrolled).collect();
        let welcomed = match self.tools.hands.maps() {
            Ok(maps) => Answer {
                reply: Reply::Welcome(Welcome {
                    version: VERSION,
                    node_addresses: self.tools.feeds.node.borrow().to_vec(),
                }),
                descriptors: vec![maps.origins, maps.dns_origins, maps.counters],
            },
            Err(error) => refused(Refusal::Kernel, error),
        };
        if matches!(welcomed.reply, Reply::Welcome(_)) {
            tracing::info!(
                proxy,
                pid = peer.pid,
                user = peer.user,
                serves = serving.len(),
                "a proxy has come"
            );
            self.fleet.join(proxy, peer.pid, started, &serving);
            self.superseded.insert(proxy, superseded);
            self.supersede();
        }
        let _ = answer.send(welcomed);
    }

    fn answer(&mut self, proxy: Option<ProxyId>, ask: &Ask) -> Vec<Answer> {
        let proxy = match (ask, proxy) {
            (Ask::Status {}, _) => return self.status(),
            (_, Some(proxy)) => proxy,
            (_, None) => return vec![refused(Refusal::NotNow, "an operator may ask for the status only")],
        };
        vec![match ask {
            Ask::Listen { pod } => self.listen(proxy, *pod),
            Ask::Serving { pod } => self.serving(proxy, *pod),
            Ask::Stock { pod, kind, count } => self.stock(*pod, *kind, *count),
            Ask::Hello(_) | Ask::Status {} => refused(Refusal::NotNow, "hello is said once"),
        }]
    }

    /// Whether that very pod is enrolled: its slot may be another's by now.
    fn enrolled(&self, key: PodKey) -> Result<(), Answer> {
        match self.pods.get(&key.slot) {
            Some(pod) if pod.key == key && pod.leaving.is_none() => Ok(()),
            _ => Err(refused(Refusal::UnknownPod, format!("no such pod is enrolled in slot {}", key.slot))),
        }
    }

    fn listen(&mut self, proxy: ProxyId, key: PodKey) -> Answer {
        if let Err(answer) = self.enrolled(key) {
            return answer;
        }
        if !self.fleet.is_current(proxy) {
            return refused(Refusal::NotNow, "another proxy has taken over");
        }
        self.expire_pending();
        let waiting = self.pending.keys().filter(|(owner, pod)| *owner == proxy && *pod != key).count();
        if waiting >= MAX_PENDING {
            return refused(Refusal::Busy, format!("listeners of {waiting} pods wait to be put in service"));
        }
        let (v4, v6) = match self.tools.hands.listeners(key.slot) {
            Ok(made) => made,
            Err(error) => return refused(Refusal::Kernel, error),
        };
        let families = [Some(&v4), v6.as_ref()];
        let listeners = families.into_iter().flatten().flat_map(FamilyListeners::descriptors);
        let descriptors = match listeners.map(|fd| fd.try_clone_to_owned()).collect::<Result<Vec<_>, _>>() {
            Ok(descriptors) => descriptors,
            Err(error) => return refused(Refusal::Kernel, error.to_string()),
        };
        let reply = Reply::Listeners { pod: key, v4: true, v6: v6.is_some() };
        self.tally.sockets += descriptors.len() as u64;
        self.pending.insert((proxy, key), Pending { v4, v6, at: Instant::now() });
        Answer { reply, descriptors }
    }

    fn serving(&mut self, proxy: ProxyId, key: PodKey) -> Answer {
        if let Err(answer) = self.enrolled(key) {
            return answer;
        }
        self.expire_pending();
        let Some(pending) = self.pending.remove(&(proxy, key)) else {
            return refused(Refusal::NotNow, "no listeners of this pod wait to be put in service");
        };
        match self.put_in_service(key, &pending) {
            Ok(()) => {
                self.fleet.serves(proxy, key);
                self.supersede();
                tracing::debug!(proxy, slot = key.slot, "serves");
                Reply::Ready { pod: key }.into()
            }
            Err(error) => {
                self.tally.failed += 1;
                tracing::error!(slot = key.slot, "cannot be served, its connections stay refused: {error}");
                refused(Refusal::Kernel, error)
            }
        }
    }

    /// Ends connections from before the enrolment while the pod can open none, then lets it.
    fn put_in_service(&mut self, key: PodKey, pending: &Pending) -> Result<(), String> {
        let Some(pod) = self.pods.get_mut(&key.slot) else { return Err("it is gone".to_owned()) };
        if !pod.old_ended && self.tools.end_old_connections {
            let ended = self.tools.hands.end_old(key.slot)?;
            self.tally.ended_connections += u64::from(ended);
            tracing::info!(slot = key.slot, workload = pod.held.workload, ended, "old connections ended");
        }
        pod.old_ended = true;
        self.tools.hands.serve(key.slot, &pending.v4, pending.v6.as_ref())
    }

    fn stock(&mut self, key: PodKey, kind: SocketKind, count: u32) -> Answer {
        // Connections that drain may need some yet.
        let is_leaving = self.pods.get(&key.slot).is_some_and(|pod| pod.key == key && pod.leaving.is_some());
        if let Err(answer) = self.enrolled(key)
            && !is_leaving
        {
            return answer;
        }
        let within = usize::try_from(count).ok().filter(|_| (1..=MAX_STOCK).contains(&count));
        let Some(count) = within else {
            return refused(Refusal::NotNow, format!("from 1 to {MAX_STOCK} sockets at a time"));
        };
        match self.tools.hands.sockets(key.slot, kind, count) {
            Ok(mut sockets) => {
                sockets.truncate(count);
                self.tally.sockets += sockets.len() as u64;
                Answer { reply: Reply::Sockets { pod: key, kind }, descriptors: sockets }
            }
            Err(error) => refused(Refusal::Kernel, error),
        }
    }

    pub(super) fn expire_pending(&mut self) {
        self.pending.retain(|(proxy, key), pending| {
            let keep = pending.at.elapsed() < PENDING;
            if !keep {
                tracing::warn!(proxy, slot = key.slot, "a proxy took listeners and does not serve them");
            }
            keep
        });
    }
}
