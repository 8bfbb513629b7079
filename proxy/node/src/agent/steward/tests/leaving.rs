//! Pods that opt out, while connections are under way.

use super::*;

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
