//! Pods that come and go, found by their cgroups as on a Kubernetes node.

use std::{fs, path::Path, time::Duration};

use demo::pods::Stack;
use tests::node::{LINES, Options, Stage, eventually};

const PODS: usize = 500;
/// At a time.
const WAVE: usize = 25;
/// The waves whose leftovers are compared: caches and tables have their size by the first.
const FIRST: usize = 3;
const LONG: Duration = Duration::from_secs(60);
/// What allocators and histograms may keep.
const MEMORY_SLACK: u64 = 16 << 20;

/// What may grow where something is not given back.
#[derive(Debug, Clone, Copy)]
struct Held {
    pins: usize,
    agent: (usize, u64),
    proxy: (usize, u64),
    programs: usize,
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// Descriptors, anonymous memory in bytes.
fn process(pid: u32) -> (usize, u64) {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    (open, line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10)
}

/// BPF programs and maps that a process holds.
fn objects(pid: u32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().contains("bpf-"))
        .count()
}

fn held(stage: &Stage) -> Held {
    let (agent, proxy) = (stage.agent.as_ref().unwrap().pid(), stage.proxy.as_ref().unwrap().pid());
    Held {
        pins: files(&stage.node.pins()),
        agent: process(agent),
        proxy: process(proxy),
        programs: objects(agent) + objects(proxy),
    }
}

fn wave(stage: &mut Stage, number: usize) {
    let always = stage.actors.len();
    for index in 0..WAVE {
        stage.pod(&format!("churn-{number}-{index}"), Stack::Dual, true).unwrap();
    }
    stage.write_manifests().unwrap();
    // Every one is captured, both ways.
    for actor in &stage.actors[always..] {
        let to = actor.pod.addresses()[0];
        stage.until_way(actor, to, "through").unwrap();
    }
    stage.actors.truncate(always);
    stage.write_manifests().unwrap();
}

#[test]
fn five_hundred_pods_come_and_go_and_nothing_is_left_of_them() {
    let mut stage = Stage::new(Options { discover: true, ..Options::default() }).unwrap();
    stage.pod("one", Stack::Dual, true).unwrap();
    stage.pod("outside", Stack::Dual, false).unwrap();
    stage.start().unwrap();
    let pins = files(&stage.node.pins());
    let mut first = None;
    for number in 0..PODS / WAVE {
        wave(&mut stage, number);
        eventually("the pins of the gone are gone", LONG, || {
            let now = files(&stage.node.pins());
            if now == pins { Ok(()) } else { Err(format!("{now} pins, {pins} before")) }
        })
        .unwrap_or_else(|error| panic!("wave {number}: {error}\n{}", stage.told()));
        if number == FIRST {
            first = Some(held(&stage));
        }
    }
    let first = first.unwrap();
    eventually("descriptors are as they were", LONG, || {
        let last = held(&stage);
        let same = last.pins == first.pins
            && last.programs <= first.programs
            && last.agent.0 <= first.agent.0
            && last.proxy.0 <= first.proxy.0;
        if same { Ok(()) } else { Err(format!("{first:?} after {FIRST} waves, {last:?} now")) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    let last = held(&stage);
    eprintln!("{first:?}\n{last:?}");
    for (name, before, now) in
        [("agent", first.agent.1, last.agent.1), ("proxy", first.proxy.1, last.proxy.1)]
    {
        assert!(now < before + MEMORY_SLACK, "{name}: {} KiB, {} KiB before", now >> 10, before >> 10);
    }
    let outside = stage.actor("outside").pod.addresses()[0];
    let said = stage.ask(&stage.actor("one").pod, (outside, LINES).into());
    assert!(said.starts_with("through outside"), "{said}\n{}", stage.told());
}
