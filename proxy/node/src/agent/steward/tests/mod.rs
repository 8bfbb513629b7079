#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod leaving;
mod life;

use std::{
    path::Path,
    sync::{Mutex, mpsc},
};

use super::*;
use crate::agent::{
    hands::{Found, Spot, Taken, Tended, Untaken},
    protocol::{
        FamilyListeners, MAX_MESSAGE, MapDescriptors, PodStatus, Refusal, Role, SocketKind, State, VERSION,
    },
    sources::{Identity, Seen, Whereabouts},
};

/// What the kernel and the node are to the steward here.
#[derive(Default)]
struct World {
    calls: Vec<String>,
    pinned: Vec<Found>,
    pods: Vec<Candidate>,
    troubles: Vec<String>,
    failing: Vec<&'static str>,
    gone: Vec<u32>,
    addresses: Vec<IpAddr>,
    under_way: usize,
    next: u32,
}

type Shared = Arc<Mutex<World>>;

#[derive(Clone)]
struct Fake(Shared);

impl Fake {
    fn call(&self, what: &'static str, text: String) -> Result<(), String> {
        let mut world = self.0.lock().unwrap();
        world.calls.push(format!("{what} {text}").trim_end().to_owned());
        if world.failing.contains(&what) { Err(format!("{what} failed")) } else { Ok(()) }
    }
}

fn file() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

impl Hands for Fake {
    fn adopted(&self) -> Result<Vec<Found>, String> {
        Ok(self.0.lock().unwrap().pinned.clone())
    }

    fn enrol(&mut self, pod: &Take) -> Result<Taken, Untaken> {
        self.call("enrol", pod.workload.clone()).map_err(Untaken::Failed)?;
        let mut world = self.0.lock().unwrap();
        let known = world.pinned.iter().find(|found| found.held.place == pod.place).cloned();
        let fresh = known.as_ref().is_none_or(|found| !found.whole);
        let key = known.map(|found| found.key).unwrap_or_else(|| {
            world.next += 1;
            PodKey { slot: world.next + 99, netns: pod.place.netns * 10 }
        });
        let held =
            Held { slot: key.slot, place: pod.place, workload: pod.workload.clone(), accelerated: None };
        world.pinned.retain(|found| found.key != key);
        world.pinned.push(Found { key, held, whole: true, ready: false });
        let closes = world.failing.contains(&"finish");
        let addresses = world.addresses.clone();
        if closes {
            return Err(Untaken::Closed("half done".to_owned()));
        }
        Ok(Taken { key, fresh, remarks: Vec::new(), addresses })
    }

    fn unenrol(&mut self, slot: u32) -> Result<(), String> {
        self.call("unenrol", slot.to_string())?;
        self.0.lock().unwrap().pinned.retain(|found| found.key.slot != slot);
        Ok(())
    }

    fn detach(&mut self, slot: u32) -> Result<(), String> {
        self.call("detach", slot.to_string())?;
        for found in &mut self.0.lock().unwrap().pinned {
            found.whole &= found.key.slot != slot;
        }
        Ok(())
    }

    fn under_way(&self, _: u32) -> Result<usize, String> {
        Ok(self.0.lock().unwrap().under_way)
    }

    fn collect(&mut self) -> Result<Vec<u32>, String> {
        Ok(std::mem::take(&mut self.0.lock().unwrap().gone))
    }

    fn tend(&mut self, _: &Spot) -> Result<Tended, String> {
        Ok(Tended { addresses: self.0.lock().unwrap().addresses.clone(), remarks: Vec::new() })
    }

    fn listeners(&self, slot: u32) -> Result<(FamilyListeners, Option<FamilyListeners>), String> {
        self.call("listeners", slot.to_string())?;
        let dns = [file(), file(), file(), file()];
        Ok((FamilyListeners { inbound: file(), outbound: file(), dns }, None))
    }

    fn sockets(&self, slot: u32, kind: SocketKind, count: usize) -> Result<Vec<OwnedFd>, String> {
        self.call("sockets", format!("{slot} {kind:?} {count}"))?;
        Ok((0..count).map(|_| file()).collect())
    }

    fn end_old(&mut self, slot: u32) -> Result<u32, String> {
        self.call("end_old", slot.to_string())?;
        Ok(2)
    }

    fn serve(&mut self, slot: u32, _: &FamilyListeners, v6: Option<&FamilyListeners>) -> Result<(), String> {
        assert!(v6.is_none());
        self.call("serve", slot.to_string())
    }

    fn maps(&self) -> Result<MapDescriptors, String> {
        self.call("maps", String::new())?;
        Ok(MapDescriptors { origins: file(), dns_origins: file(), counters: file() })
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, String> {
        Ok(vec![("guard_syn", 4)])
    }

    fn node_addresses(&self) -> Result<Vec<IpAddr>, String> {
        Ok(vec!["10.0.0.1".parse().unwrap()])
    }
}

impl Source for Fake {
    fn look(&mut self, _: &BTreeSet<u64>) -> Seen {
        let world = self.0.lock().unwrap();
        Seen { pods: world.pods.clone(), troubles: world.troubles.clone() }
    }
}

/// A steward in a world of its own.
struct Scene {
    steward: Steward,
    world: Shared,
    manifests: watch::Sender<Option<Arc<Snapshot>>>,
    published: watch::Receiver<Option<Arc<Vec<PodInfo>>>>,
}

/// Manifests in which these workloads are, opted in or not.
fn snapshot(version: u64, workloads: &[(&str, bool)]) -> Option<Arc<Snapshot>> {
    let workload = |(name, enrolled): &(&str, bool)| mesh::WorkloadSettings {
        enrolled: Some(*enrolled),
        ..mesh::WorkloadSettings::named(*name)
    };
    let workloads = workloads.iter().map(workload).collect();
    let settings = mesh::MeshSettings { workloads, ..mesh::MeshSettings::default() };
    Some(Arc::new(Snapshot::build(&[], &settings, version).unwrap().0))
}

fn candidate(name: &str, number: u64) -> Candidate {
    let path = format!("/run/netns/{number}").into();
    Candidate {
        identity: Identity::Workload(name.parse().unwrap(), None),
        cgroup: format!("/cg/{number}").into(),
        cgroup_id: Some(number),
        netns: Whereabouts::At { path, inode: number },
    }
}

fn pinned(slot: u32, number: u64, ready: bool) -> Found {
    let place = Place { netns: number, cgroup: number };
    let held = Held { slot, place, workload: "data/old".to_owned(), accelerated: None };
    Found { key: PodKey { slot, netns: number * 10 }, held, whole: true, ready }
}

impl Scene {
    fn new(world: World, manifests: Option<Arc<Snapshot>>) -> Self {
        let world: Shared = Arc::new(Mutex::new(world));
        let (sender, snapshots) = watch::channel(manifests);
        let feeds = Feeds { pods: watch::channel(None).0, node: watch::channel(Arc::default()).0 };
        let published = feeds.pods.subscribe();
        let tools = Tools {
            hands: Box::new(Fake(Arc::clone(&world))),
            sources: vec![Box::new(Fake(Arc::clone(&world)))],
            snapshots,
            manifests: watch::channel(SourceStatus::default()).1,
            feeds,
            own_cgroup: Some("/cg/agent".into()),
            pins: "/pins".into(),
            end_old_connections: true,
            transparent: true,
            drain: Duration::from_secs(3600),
        };
        Self { steward: Steward::new(tools).unwrap(), world, manifests: sender, published }
    }

    /// One pod, `data/fhir`, enrolled and published.
    fn with_one_pod() -> (Self, PodKey) {
        let world = World { pods: vec![candidate("data/fhir", 5)], ..World::default() };
        let mut scene = Self::new(world, snapshot(1, &[("data/fhir", true)]));
        scene.settle();
        let key = scene.pods()[0].key;
        (scene, key)
    }

    fn settle(&mut self) {
        self.steward.look();
        while let Some(step) = self.steward.steps.pop_front() {
            self.steward.do_step(step);
        }
        self.steward.publish();
    }

    fn pods(&self) -> Vec<PodInfo> {
        self.published.borrow().as_ref().map(|pods| pods.to_vec()).unwrap_or_default()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().calls)
    }

    fn join(&mut self, proxy: ProxyId, started: u64, serving: Vec<PodKey>) -> watch::Receiver<bool> {
        let (superseded, told) = watch::channel(false);
        let (answer, mut welcome) = oneshot::channel();
        let peer = Peer { user: 65_532, pid: 1 };
        self.steward.carry_out(Order::Join { proxy, peer, started, serving, superseded, answer });
        let welcome = welcome.try_recv().unwrap();
        assert!(matches!(welcome.reply, Reply::Welcome(_)), "{welcome:?}");
        assert_eq!(welcome.descriptors.len(), 3);
        told
    }

    fn ask(&mut self, proxy: Option<ProxyId>, ask: Ask) -> Vec<Answer> {
        let (answer, mut answers) = oneshot::channel();
        self.steward.carry_out(Order::Ask { proxy, ask, answer });
        answers.try_recv().unwrap()
    }

    fn one(&mut self, proxy: ProxyId, ask: Ask) -> Answer {
        let mut answers = self.ask(Some(proxy), ask);
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    fn refusal(&mut self, proxy: Option<ProxyId>, ask: Ask) -> Refusal {
        match &self.ask(proxy, ask)[..] {
            [Answer { reply: Reply::Refused { reason, .. }, descriptors }] if descriptors.is_empty() => {
                *reason
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    fn serve(&mut self, proxy: ProxyId, pod: PodKey) {
        assert_eq!(self.one(proxy, Ask::Listen { pod }).descriptors.len(), 6);
        assert_eq!(self.one(proxy, Ask::Serving { pod }).reply, Reply::Ready { pod });
    }

    fn status(&mut self) -> Vec<PodStatus> {
        let answers = self.ask(None, Ask::Status {});
        let mut pods = Vec::new();
        let last = answers.len() - 1;
        for (index, answer) in answers.into_iter().enumerate() {
            assert!(serde_json::to_string(&answer.reply).unwrap().len() < MAX_MESSAGE - 64);
            let Reply::Status(part) = answer.reply else { panic!("no status") };
            assert_eq!(part.more, index < last);
            assert_eq!(part.agent.is_some(), index == 0);
            pods.extend(part.pods);
        }
        pods
    }

    fn standing(&mut self) -> (State, Reason) {
        let pods = self.status();
        assert_eq!(pods.len(), 1, "{pods:?}");
        (pods[0].state, pods[0].reason)
    }
}
