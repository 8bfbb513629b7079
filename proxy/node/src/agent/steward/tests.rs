#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    path::Path,
    sync::{Mutex, mpsc},
};

use super::*;
use crate::agent::{
    hands::{Found, Tended},
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

#[test]
fn a_pod_is_enrolled_served_and_un_enrolled_as_the_manifests_say() {
    let (mut scene, key) = Scene::with_one_pod();
    assert_eq!(scene.calls(), ["enrol data/fhir"]);
    assert_eq!(scene.standing(), (State::Waiting, Reason::OptedIn));
    let info = &scene.pods()[0];
    assert_eq!((info.workload.as_str(), info.enrolment, info.transparent), ("data/fhir", 1, true));
    scene.join(1, 1, Vec::new());
    scene.calls();
    scene.serve(1, key);
    // Old connections end while nothing can be opened, then the listeners take over.
    assert_eq!(scene.calls(), ["listeners 100", "end_old 100", "serve 100"]);
    assert_eq!(scene.standing(), (State::Serving, Reason::OptedIn));
    // Another proxy's turn: nothing is ended again.
    scene.join(2, 2, Vec::new());
    scene.calls();
    scene.serve(2, key);
    assert_eq!(scene.calls(), ["listeners 100", "serve 100"]);

    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    assert_eq!(scene.calls(), ["detach 100", "unenrol 100"]);
    assert_eq!(scene.pods(), []);
    assert_eq!(scene.standing(), (State::NotEnrolled, Reason::NotOptedIn));
    assert_eq!(scene.refusal(Some(2), Ask::Listen { pod: key }), Refusal::UnknownPod);
}

#[test]
fn only_what_is_enrolled_can_be_asked_for() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.join(1, 1, Vec::new());
    scene.join(2, 2, Vec::new());
    scene.calls();
    let stranger = PodKey { netns: key.netns + 1, ..key };
    let nobody = PodKey { slot: u32::MAX, netns: 0 };
    let stock = |pod, count| Ask::Stock { pod, kind: SocketKind::Egress4, count };
    for pod in [stranger, nobody] {
        for ask in [Ask::Listen { pod }, Ask::Serving { pod }, stock(pod, 1)] {
            assert_eq!(scene.refusal(Some(2), ask), Refusal::UnknownPod);
        }
    }
    let hello = Ask::Hello(crate::agent::protocol::Hello {
        version: VERSION,
        role: Role::Proxy,
        started: 0,
        serving: Vec::new(),
    });
    for ask in [stock(key, 0), stock(key, 65), stock(key, u32::MAX), Ask::Serving { pod: key }, hello] {
        assert_eq!(scene.refusal(Some(2), ask), Refusal::NotNow);
    }
    for ask in [Ask::Listen { pod: key }, stock(key, 1)] {
        assert_eq!(scene.refusal(None, ask), Refusal::NotNow, "an operator");
    }
    assert_eq!(scene.calls(), Vec::<String>::new(), "nothing reached the kernel");
    // One proxy's listeners are not another's to put in service, and they serve once.
    scene.one(2, Ask::Listen { pod: key });
    assert_eq!(scene.refusal(Some(1), Ask::Serving { pod: key }), Refusal::NotNow);
    assert_eq!(scene.one(2, Ask::Serving { pod: key }).reply, Reply::Ready { pod: key });
    assert_eq!(scene.refusal(Some(2), Ask::Serving { pod: key }), Refusal::NotNow);
    assert_eq!(scene.one(2, stock(key, 64)).descriptors.len(), 64);
}

#[test]
fn what_is_pinned_is_kept_while_the_manifests_are_broken_and_nothing_new_is_enrolled() {
    let world = World {
        pinned: vec![pinned(3, 5, true), pinned(4, 6, true)],
        pods: vec![candidate("data/old", 5), candidate("data/new", 7)],
        ..World::default()
    };
    let mut scene = Scene::new(world, None);
    assert_eq!(scene.pods(), []);
    scene.settle();
    // Taken up again, so that sockets can be made in it; the other one cannot be found, and stays.
    assert_eq!(scene.calls(), ["enrol data/old"]);
    let infos: Vec<(u32, u64)> = scene.pods().iter().map(|pod| (pod.key.slot, pod.enrolment)).collect();
    assert_eq!(infos, [(3, 0), (4, 0)]);
    let mut reasons: Vec<(String, Reason)> =
        scene.status().into_iter().map(|pod| (pod.name, pod.reason)).collect();
    reasons.sort();
    let name = str::to_owned;
    assert_eq!(
        reasons,
        [
            (name("data/new"), Reason::NoManifests),
            (name("data/old"), Reason::Adopted),
            (name("data/old"), Reason::Adopted),
        ]
    );
    // The manifests come: what they do not know and nobody shows is left.
    scene.manifests.send_replace(snapshot(1, &[("data/old", true), ("data/new", true)]));
    scene.settle();
    assert_eq!(scene.calls(), ["detach 4", "unenrol 4", "enrol data/new"]);
}

#[test]
fn a_pod_taken_up_again_is_not_cut_and_its_proxy_goes_on_serving_it() {
    let world =
        World { pinned: vec![pinned(3, 5, true)], pods: vec![candidate("data/old", 5)], ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/old", true)]));
    let key = PodKey { slot: 3, netns: 50 };
    let superseded = scene.join(1, 1, vec![key, PodKey { slot: 9, netns: 9 }]);
    assert!(scene.pods().is_empty(), "told before what is pinned was looked at");
    scene.settle();
    assert_eq!(scene.standing(), (State::Serving, Reason::OptedIn));
    assert!(!*superseded.borrow());
    scene.calls();
    scene.serve(1, key);
    assert_eq!(scene.calls(), ["listeners 3", "serve 3"], "connections were ended twice");
}

#[test]
fn one_that_was_killed_before_the_pod_was_ready_has_its_old_connections_ended() {
    let world =
        World { pinned: vec![pinned(3, 5, false)], pods: vec![candidate("data/old", 5)], ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/old", true)]));
    scene.settle();
    scene.join(1, 1, Vec::new());
    scene.calls();
    scene.serve(1, PodKey { slot: 3, netns: 50 });
    assert_eq!(scene.calls(), ["listeners 3", "end_old 3", "serve 3"]);
}

#[test]
fn a_pod_whose_old_connections_cannot_be_ended_is_not_let_out() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.join(1, 1, Vec::new());
    scene.world.lock().unwrap().failing = vec!["end_old"];
    scene.calls();
    scene.one(1, Ask::Listen { pod: key });
    assert_eq!(scene.refusal(Some(1), Ask::Serving { pod: key }), Refusal::Kernel);
    assert_eq!(scene.calls(), ["listeners 100", "end_old 100"]);
    assert_eq!(scene.standing().0, State::Waiting);
}

#[test]
fn a_failed_enrolment_is_told_and_tried_again_later() {
    let world = World { pods: vec![candidate("data/fhir", 5)], failing: vec!["enrol"], ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/fhir", true)]));
    scene.settle();
    scene.settle();
    assert_eq!(scene.calls(), ["enrol data/fhir"], "tried again at once");
    assert_eq!(scene.standing(), (State::NotEnrolled, Reason::Failed));
    scene.world.lock().unwrap().failing.clear();
    for failure in scene.steward.failures.values_mut() {
        failure.again = Instant::now();
    }
    scene.settle();
    assert_eq!(scene.standing(), (State::Waiting, Reason::OptedIn));
}

#[test]
fn an_enrolment_left_half_done_is_known_and_can_be_undone() {
    let world = World { pods: vec![candidate("data/fhir", 5)], failing: vec!["finish"], ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/fhir", true)]));
    scene.settle();
    scene.settle();
    assert_eq!(scene.standing(), (State::Waiting, Reason::Failed));
    scene.calls();
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    assert_eq!(scene.calls(), ["detach 100", "unenrol 100"]);
    assert_eq!(scene.standing(), (State::NotEnrolled, Reason::NotOptedIn));
}

#[test]
fn what_cannot_be_un_enrolled_is_tried_again() {
    let (mut scene, _) = Scene::with_one_pod();
    scene.world.lock().unwrap().failing = vec!["detach"];
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    assert_eq!(scene.pods().len(), 1);
    scene.world.lock().unwrap().failing.clear();
    scene.settle();
    assert_eq!(scene.pods(), []);
}

#[test]
fn connections_under_way_end_before_the_rest_of_a_pod_that_is_left() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.join(1, 1, Vec::new());
    scene.serve(1, key);
    scene.calls();
    scene.world.lock().unwrap().under_way = 1;
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    scene.settle();
    assert_eq!(scene.calls(), ["detach 100"]);
    assert_eq!(scene.pods(), []);
    assert_eq!(scene.standing(), (State::NotEnrolled, Reason::NotOptedIn));
    // What drains may need sockets, and nothing new is served.
    scene.one(1, Ask::Stock { pod: key, kind: SocketKind::Ingress4, count: 1 });
    assert_eq!(scene.refusal(Some(1), Ask::Listen { pod: key }), Refusal::UnknownPod);
    scene.calls();
    scene.world.lock().unwrap().under_way = 0;
    scene.settle();
    assert_eq!(scene.calls(), ["unenrol 100"]);
    assert_eq!(
        scene.refusal(Some(1), Ask::Stock { pod: key, kind: SocketKind::Ingress4, count: 1 }),
        Refusal::UnknownPod
    );
}

#[test]
fn a_pod_that_comes_back_while_its_connections_end_is_enrolled_again() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.world.lock().unwrap().under_way = 1;
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    scene.calls();
    scene.manifests.send_replace(snapshot(3, &[("data/fhir", true)]));
    scene.settle();
    assert_eq!(scene.calls(), ["enrol data/fhir"]);
    let pods = scene.pods();
    assert_eq!((pods[0].key, pods[0].enrolment), (key, 2));
    scene.join(1, 1, Vec::new());
    scene.calls();
    scene.serve(1, key);
    assert_eq!(scene.calls(), ["listeners 100", "end_old 100", "serve 100"]);
}

/// Else its new namespace's traffic would go past the proxy for as long as the old connections last.
#[test]
fn a_pod_that_is_started_anew_in_its_cgroup_does_not_wait_for_old_connections() {
    let (mut scene, _) = Scene::with_one_pod();
    scene.calls();
    {
        let mut world = scene.world.lock().unwrap();
        world.under_way = 1;
        world.pods[0].netns = Whereabouts::At { path: "/proc/9/ns/net".into(), inode: 77 };
    }
    scene.settle();
    assert_eq!(scene.calls(), ["detach 100", "unenrol 100", "enrol data/fhir"]);
    assert_eq!(scene.pods()[0].key.netns, 770);
}

#[test]
fn a_pod_that_has_opted_out_is_not_taken_back_when_the_manifests_forget_it() {
    let (mut scene, _) = Scene::with_one_pod();
    scene.world.lock().unwrap().under_way = 1;
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    scene.calls();
    scene.manifests.send_replace(snapshot(3, &[]));
    scene.settle();
    assert_eq!(scene.calls(), Vec::<String>::new());
    assert_eq!(scene.standing(), (State::NotEnrolled, Reason::UnknownWorkload));
    scene.world.lock().unwrap().under_way = 0;
    scene.settle();
    assert_eq!(scene.calls(), ["unenrol 100"]);
}

#[test]
fn connections_that_never_end_do_not_keep_a_pod_for_ever() {
    let (mut scene, _) = Scene::with_one_pod();
    scene.steward.tools.drain = Duration::ZERO;
    scene.world.lock().unwrap().under_way = 1;
    scene.calls();
    scene.manifests.send_replace(snapshot(2, &[("data/fhir", false)]));
    scene.settle();
    assert_eq!(scene.calls(), ["detach 100", "unenrol 100"]);
}

#[test]
fn a_pod_that_is_gone_is_forgotten_and_one_that_cannot_be_seen_is_not() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.calls();
    {
        let mut world = scene.world.lock().unwrap();
        world.pods.clear();
        world.troubles.push("too many open files".to_owned());
    }
    scene.settle();
    assert_eq!(scene.pods().len(), 1);
    scene.world.lock().unwrap().gone.push(key.slot);
    scene.settle();
    assert_eq!((scene.pods(), scene.calls()), (Vec::new(), Vec::new()));
}

#[test]
fn a_proxy_is_superseded_once_and_may_take_no_pod_any_more() {
    let (mut scene, key) = Scene::with_one_pod();
    let first = scene.join(1, 1, Vec::new());
    scene.serve(1, key);
    let second = scene.join(2, 2, Vec::new());
    assert!(!*first.borrow());
    scene.serve(2, key);
    assert!(*first.borrow() && !*second.borrow());
    assert_eq!(scene.refusal(Some(1), Ask::Listen { pod: key }), Refusal::NotNow);
    // It may still have sockets for what is under way.
    scene.one(1, Ask::Stock { pod: key, kind: SocketKind::Ingress4, count: 1 });
    scene.steward.carry_out(Order::Part { proxy: 2, admission: None });
    assert_eq!(scene.standing().0, State::Waiting);
}

#[test]
fn listeners_that_are_not_served_are_closed_with_their_proxy_or_after_a_while() {
    let (mut scene, key) = Scene::with_one_pod();
    scene.join(1, 1, Vec::new());
    scene.one(1, Ask::Listen { pod: key });
    scene.one(1, Ask::Listen { pod: key });
    assert_eq!(scene.steward.pending.len(), 1);
    scene.steward.carry_out(Order::Part { proxy: 1, admission: None });
    assert!(scene.steward.pending.is_empty());
}

#[test]
fn a_proxy_cannot_keep_the_listeners_of_every_pod_waiting() {
    let pods: Vec<Candidate> = (1..=70).map(|number| candidate("data/fhir", number)).collect();
    let world = World { pods, ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/fhir", true)]));
    scene.settle();
    scene.join(1, 1, Vec::new());
    let keys: Vec<PodKey> = scene.pods().iter().map(|pod| pod.key).collect();
    let refused = keys
        .iter()
        .filter(|pod| matches!(scene.one(1, Ask::Listen { pod: **pod }).reply, Reply::Refused { .. }))
        .count();
    assert_eq!(refused, 6);
}

#[test]
fn addresses_and_namespace_paths_are_followed() {
    let (mut scene, _) = Scene::with_one_pod();
    let address: IpAddr = "10.1.1.1".parse().unwrap();
    scene.world.lock().unwrap().addresses.push(address);
    scene.settle();
    assert_eq!(scene.pods()[0].addresses, [address]);
    // The process whose path it was has ended; another one is in the same namespace.
    scene.calls();
    scene.world.lock().unwrap().pods[0].netns = Whereabouts::At { path: "/proc/7/ns/net".into(), inode: 5 };
    scene.settle();
    scene.settle();
    assert_eq!(scene.calls(), ["enrol data/fhir"]);
    assert_eq!(scene.pods()[0].enrolment, 1, "it is the same enrolment");
    assert_eq!(scene.steward.pods[&100].netns.as_deref(), Some(Path::new("/proc/7/ns/net")));
}

#[test]
fn a_thousand_pods_are_told_in_parts() {
    let pods: Vec<Candidate> = (1..=1100)
        .map(|number| Candidate {
            cgroup: format!("/cg/{}/{number}", "x".repeat(900)).into(),
            ..candidate("data/fhir", number)
        })
        .collect();
    let world = World { pods, ..World::default() };
    let mut scene = Scene::new(world, snapshot(1, &[("data/fhir", true)]));
    scene.settle();
    let status = scene.status();
    assert_eq!(status.len(), 1100);
    assert!(status.iter().all(|pod| pod.cgroup.len() < 600 && pod.state == State::Waiting));
    let figures = scene.steward.figures();
    assert_eq!(figures.pods.get(&("waiting", "opted_in")), Some(&1100));
}

#[test]
fn it_answers_while_there_is_much_to_do_and_stops_when_told() {
    let pods: Vec<Candidate> = (1..=500).map(|number| candidate("data/fhir", number)).collect();
    let world = World { pods, ..World::default() };
    let Scene { steward, world, published, manifests: _manifests } =
        Scene::new(world, snapshot(1, &[("data/fhir", true)]));
    let (orders, received) = mpsc::channel();
    let (answer, mut figures) = oneshot::channel();
    orders.send(Order::Figures(answer)).unwrap();
    let thread = std::thread::spawn(move || steward.run(&received));
    let mut waited = 0;
    let figures = loop {
        match figures.try_recv() {
            Ok(figures) => break figures,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        waited += 1;
        assert!(waited < 1000, "no answer");
    };
    assert_eq!(figures.counters, [("guard_syn", 4)]);
    while published.borrow().as_ref().is_none_or(|pods| pods.len() < 500) {
        std::thread::sleep(Duration::from_millis(10));
        waited += 1;
        assert!(waited < 3000, "not all were enrolled");
    }
    orders.send(Order::Stop).unwrap();
    thread.join().unwrap();
    assert!(
        !world.lock().unwrap().calls.iter().any(|call| call.starts_with("detach")),
        "it opened pods at its end"
    );
}
