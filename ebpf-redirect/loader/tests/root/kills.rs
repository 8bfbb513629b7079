//! SIGKILL at any instant of enrolment and un-enrolment.

use std::{
    env, fs,
    net::TcpListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use loader::{Kernel, LoadError};

use super::bed::{Bed, Pod, enrol, on_a_node, reaches};

const ROLE: &str = "LOADER_TEST_ROLE";
const TEST: &str = "kills::an_agent_killed_at_any_instant_leaves_what_the_next_one_mends";

/// Pins of a whole pod: two guards, thirteen programs.
const PINS: usize = 15;

/// The lock of a killed agent goes with its last thread, a little after its end is told.
fn open(bed: &Bed) -> Kernel {
    let begun = Instant::now();
    loop {
        match Kernel::open(&bed.settings()) {
            Err(LoadError::Taken { .. }) if begun.elapsed() < Duration::from_secs(30) => {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other.unwrap(),
        }
    }
}

/// Whether the pod is partly enrolled; if so, from the first guard on it opens no connection.
fn is_partial(kernel: &Kernel, pod: &Pod) -> bool {
    let adopted = kernel.adopted().unwrap();
    let Some(found) = adopted.iter().find(|pod| !pod.complete) else { return false };
    let guarded = found.programs.iter().any(|program| program.starts_with("guard_"));
    let outside = TcpListener::bind((pod.node4, 0)).unwrap();
    let is_open = reaches(pod, pod.node4, outside.local_addr().unwrap().port());
    assert!(!(guarded && is_open), "{found:?}");
    assert!(!found.ready, "{found:?}");
    true
}

/// Starts this test again as an agent that enrols or un-enrols, and kills it as soon as the number of
/// pins is what `until` waits for, or it has ended.
fn killed(bed: &Bed, role: &str, until: impl Fn(usize) -> bool) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(ROLE, role)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let folder = bed.bpffs().join("fhirward/links/0");
    while !until(fs::read_dir(&folder).map_or(0, Iterator::count)) && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_micros(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn act(bed: &Bed, role: &str, facts: &loader::PodFacts) {
    let mut kernel = open(bed);
    match role {
        "enrol" => drop(kernel.enrol(facts).unwrap()),
        _ => {
            for pod in kernel.adopted().unwrap() {
                kernel.unenrol(pod.slot).unwrap();
            }
        }
    }
}

#[test]
fn an_agent_killed_at_any_instant_leaves_what_the_next_one_mends() {
    on_a_node(TEST, |bed| {
        if let Ok(role) = env::var(ROLE) {
            let (role, path) = role.split_once(' ').unwrap();
            let (netns, cgroup) = path.split_once(' ').unwrap();
            let netns = loader::Netns::open(netns).unwrap();
            let (name, cgroup) = ("test/killed".to_owned(), cgroup.into());
            let facts = loader::PodFacts { name, netns, cgroup, accelerated: false };
            act(bed, role, &facts);
            return;
        }
        let pod = bed.pod(1);
        let before = pod.netns_state();
        let role = |what: &str| format!("{what} {} {}", pod.path().display(), pod.cgroup.display());
        let mut partial = 0;
        for pins in 1..=PINS {
            killed(bed, &role("enrol"), |found| found >= pins);
            let mut kernel = open(bed);
            partial += u32::from(is_partial(&kernel, &pod));
            assert_eq!(enrol(&mut kernel, &pod).slot.get(), 0);
            assert!(kernel.adopted().unwrap()[0].complete);
            assert_eq!(pod.connects(pod.node4, 9), "EPERM");
            drop(kernel);

            killed(bed, &role("unenrol"), |found| found <= PINS - pins);
            let mut kernel = open(bed);
            partial += u32::from(is_partial(&kernel, &pod));
            // Either way goes on from there: to whole, or to nothing.
            if pins % 2 == 0 {
                enrol(&mut kernel, &pod);
                assert!(kernel.adopted().unwrap()[0].complete);
            }
            for left in kernel.adopted().unwrap() {
                kernel.unenrol(left.slot).unwrap();
            }
            assert_eq!(pod.netns_state(), before);
        }
        println!("{partial} of {} kills left a pod that was not whole", PINS * 2);
    });
}
