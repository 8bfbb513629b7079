//! SIGKILL at any instant of enrolment and un-enrolment.

use std::{
    env,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use loader::{Kernel, LoadError};

use super::bed::{Bed, enrol, on_a_node};

const ROLE: &str = "LOADER_TEST_ROLE";
const TEST: &str = "kills::an_agent_killed_at_any_instant_leaves_what_the_next_one_mends";

/// How many kills in each direction.
const KILLS: u32 = 25;

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

/// Starts this test again as an agent that enrols or un-enrols, and kills it after a while.
fn killed(role: &str, after: Duration) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(ROLE, role)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(after);
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
            let facts = loader::PodFacts { name, netns, cgroup, transparent: true, accelerated: false };
            act(bed, role, &facts);
            return;
        }
        let pod = bed.pod(1);
        let before = pod.netns_state();
        let role = |what: &str| format!("{what} {} {}", pod.path().display(), pod.cgroup.display());
        // How long a whole one takes here, so that the kills fall within.
        let begun = Instant::now();
        act(bed, "enrol", &pod.facts());
        let whole = begun.elapsed() * 3;
        let mut partial = 0;
        for kill in 0..KILLS {
            killed(&role("unenrol"), whole * kill / KILLS);
            let mut kernel = open(bed);
            partial += u32::from(kernel.adopted().unwrap().iter().any(|pod| !pod.complete));
            assert_eq!(enrol(&mut kernel, &pod).slot.get(), 0);
            assert!(kernel.adopted().unwrap()[0].complete);
            assert_eq!(pod.connects(pod.node4, 9), "EPERM");
            kernel.unenrol(kernel.adopted().unwrap()[0].slot).unwrap();
            assert_eq!(pod.netns_state(), before);
            drop(kernel);

            killed(&role("enrol"), whole * kill / KILLS);
            let mut kernel = open(bed);
            partial += u32::from(kernel.adopted().unwrap().iter().any(|pod| !pod.complete));
            enrol(&mut kernel, &pod);
            assert!(kernel.adopted().unwrap()[0].complete);
        }
        println!("{partial} of {} kills left a pod that was not whole", KILLS * 2);
    });
}
