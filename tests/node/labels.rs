//! Enrolment and its end, while the pod goes on.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use demo::pods::{Pod, Stack};
use tests::node::{LINES, Options, Program, SOON, Stage, eventually};

fn stage(capture: &str) -> Stage {
    let mut stage = Stage::new(Options { capture: capture.to_owned(), ..Options::default() }).unwrap();
    for (name, enrolled) in [("one", false), ("two", false), ("outside", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage
}

fn address(stage: &Stage, name: &str) -> std::net::SocketAddr {
    (stage.actor(name).pod.addresses()[0], LINES).into()
}

/// Everything that capture may leave in a pod's namespace or on the node.
fn traces(pod: &Pod) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let namespace = pod.namespace();
    for question in ["-4 rule show", "-6 rule show", "-4 route show table all", "-6 route show table all"] {
        let mut command = Command::new("ip");
        command.args(["-n", namespace.name()]).args(question.split(' '));
        let said = Program::run("ip", command, SOON).unwrap();
        // A link-local address comes by itself, a moment after the interface.
        let lines = said.lines().filter(|line| !line.contains("fe80"));
        found.extend(lines.map(|line| format!("{question}: {}", line.trim())));
    }
    for name in
        ["ipv4/tcp_fwmark_accept", "ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv4/conf/lo/rp_filter"]
    {
        let read = || fs::read_to_string(Path::new("/proc/sys/net").join(name));
        found.insert(format!("{name} {:?}", namespace.run(read).unwrap()));
    }
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    for table in tables {
        let read = || fs::read_to_string(Path::new("/proc/self/net").join(table));
        let thread = || fs::read_to_string(Path::new("/proc/thread-self/net").join(table));
        let text = namespace.run(|| thread().or_else(|_| read())).unwrap().unwrap_or_default();
        // Local address and state; the rest counts and times. A connection that just ended waits (06).
        let ends = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ends = ends.filter(|words| words.get(3) != Some(&"06"));
        found.extend(ends.map(|words| format!("{table} {:?} {:?}", words.get(1), words.get(3))));
    }
    found
}

/// Files below the pins, without the maps that all pods share.
fn links(stage: &Stage) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(&stage.node.pins().join("fhirward/links"), &mut found);
    found
}

#[test]
fn the_label_captures_a_running_pod_and_releases_it_again_without_a_trace() {
    let mut stage = stage("");
    stage.start().unwrap();
    let outside = address(&stage, "outside");
    let one = |stage: &Stage| stage.ask(&stage.actor("one").pod, outside);
    assert!(one(&stage).starts_with("past outside"), "{}", one(&stage));
    let before = traces(&stage.actor("one").pod);
    let process = stage.actor("one").server.as_ref().unwrap().pid();

    for round in 0..5 {
        stage.label("one", true).unwrap();
        let took = stage.until_way(stage.actor("one"), outside.ip(), "through").unwrap();
        let said = stage.ask(&stage.actor("one").pod, outside);
        assert!(said.starts_with("through outside"), "{said}\n{}", stage.told());
        assert!(!links(&stage).is_empty(), "nothing is pinned");
        stage.label("one", false).unwrap();
        let back = stage.until_way(stage.actor("one"), outside.ip(), "past").unwrap();
        eprintln!("round {round}: captured after {took:?}, released after {back:?}");
        eventually("nothing is left in the pod", SOON, || {
            let (now, links) = (traces(&stage.actor("one").pod), links(&stage));
            let new: Vec<_> = now.difference(&before).cloned().chain(links).collect();
            if new.is_empty() { Ok(()) } else { Err(format!("{new:#?}")) }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    }
    let server = stage.actors.iter_mut().find(|actor| actor.pod.name() == "one").unwrap().server.as_mut();
    assert!(server.unwrap().runs().unwrap(), "the pod's process {process} has ended");
}

/// Connections from before are ended; with the setting off they go on.
#[test]
fn connections_from_before_enrolment_are_ended_unless_the_setting_says_otherwise() {
    for (setting, ended) in [("", true), ("  endOldConnections: false\n", false)] {
        let mut stage = stage(setting);
        stage.start().unwrap();
        let outside = address(&stage, "outside");
        let inwards = address(&stage, "one");
        let mut held = Vec::new();
        for (from, to) in [("one", outside), ("outside", inwards)] {
            let program = stage.in_pod(from, &["hold", &to.to_string(), "3"]).unwrap();
            program.line("held 3", SOON).unwrap();
            held.push((from, program));
        }
        stage.label("one", true).unwrap();
        stage.until_captured().unwrap();
        for (from, mut program) in held {
            program.tell("again").unwrap();
            let lives = program.line("held 3", SOON);
            assert_eq!(lives.is_err(), ended, "from {from}, {setting:?}: {lives:?}\n{}", stage.told());
        }
        // Either way a new one goes through the proxy.
        let said = stage.ask(&stage.actor("one").pod, outside);
        assert!(said.starts_with("through"), "{said}");
    }
}

/// Under load in both directions there is no instant at which a new connection goes past the proxy
/// once one has gone through it, and none that hangs.
#[test]
fn enrolment_under_load_never_opens_a_way_past() {
    let mut stage = stage("");
    stage.start().unwrap();
    let two = address(&stage, "two");
    // The second pod is captured all the time, so that a connection to it never needs the first's veth.
    stage.label("two", true).unwrap();
    stage.until_captured().unwrap();
    for _ in 0..5 {
        stage.label("one", true).unwrap();
        stage.until_captured().unwrap();
        let load = stage.in_pod("one", &["load", &two.to_string(), "4", "new", "20000"]).unwrap();
        load.line("well", SOON).unwrap();
        let eye = tests::node::Sniffer::strays(stage.node.namespace()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let strays = eye.frames().len();
        assert_eq!(strays, 0, "left past the proxy while captured");
        drop(eye);
        stage.label("one", false).unwrap();
        // By the node's address: on the way to the other pod there is a proxy anyway.
        let node = stage.actor("one").gateway(two.ip()).unwrap();
        stage.until_way(stage.actor("one"), node, "past").unwrap();
        let (_, said) = load.finish(SOON).unwrap();
        assert!(!said.contains("hangs"), "{said}");
    }
}

/// The pod's processes outlive everything: they are never restarted.
#[test]
fn a_pod_whose_namespace_goes_leaves_nothing_behind() {
    let mut stage = stage("");
    stage.label("one", true).unwrap();
    stage.label("two", true).unwrap();
    stage.start().unwrap();
    let before = links(&stage).len();
    assert!(before > 0, "nothing is pinned");
    let gone = stage.actors.remove(0);
    assert_eq!(gone.pod.name(), "one");
    drop(gone);
    stage.write_manifests().unwrap();
    eventually("half of the pins are gone", SOON, || {
        let now = links(&stage).len();
        if now * 2 <= before { Ok(()) } else { Err(format!("{now} of {before}: {:#?}", links(&stage))) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    let said = stage.ask(&stage.actor("two").pod, address(&stage, "outside"));
    assert!(said.starts_with("through outside"), "{said}");
}
