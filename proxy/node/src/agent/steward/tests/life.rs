//! Pods, proxies and the agent come and go.

use super::*;

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
    let pods: Vec<Candidate> = (1..=262).map(|number| candidate("data/fhir", number)).collect();
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
