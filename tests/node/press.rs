//! Many connections, readers that do not read, and pods that come and go.

use std::{fs, net::SocketAddr, time::Duration};

use demo::pods::Stack;
use tests::node::{LINES, Options, Stage, eventually};

/// Through the proxy, which has two descriptors for each.
const CONNECTIONS: u64 = 10_000;
/// Its other descriptors: stocks, listeners, files.
const OTHER_FILES: u64 = 2000;
/// What stalled transfers may cost the proxy, beside what the kernel's buffers hold.
const STALLED: usize = 40;
const STALLED_BYTES: u64 = 64 << 20;
const MEMORY_MAX: u64 = 64 << 20;
const LONG: Duration = Duration::from_secs(120);

fn stage() -> Stage {
    // As many as are tested and a few more: the default allows one pod not one more.
    let more = "limits: {connectionsPerPod: 11000}\n".to_owned();
    let mut stage = Stage::new(Options { more, ..Options::default() }).unwrap();
    for (name, enrolled) in [("one", true), ("two", true), ("outside", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    stage
}

/// Anonymous memory of a process, bytes.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// As many as are tested: fewer only where this machine lets no process, root's neither, have the
/// descriptors for them.
fn connections() -> String {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let raised = fs::read_to_string("/proc/sys/fs/nr_open").unwrap().trim().parse().unwrap();
    let may_raise = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    let files = if may_raise { raised } else { most };
    CONNECTIONS.min(files.saturating_sub(OTHER_FILES) / 2).to_string()
}

#[test]
fn ten_thousand_connections_at_once() {
    let stage = stage();
    let connections = connections();
    let to: SocketAddr = (stage.actor("two").pod.addresses()[0], LINES).into();
    let mut held = stage.in_pod("one", &["hold", &to.to_string(), &connections]).unwrap();
    let whole = format!("held {connections}");
    held.line(&whole, LONG).unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    // All at once are there, and each still answers.
    held.tell("again").unwrap();
    held.line(&whole, LONG).unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    let pid = stage.proxy.as_ref().unwrap().pid();
    eprintln!(
        "{} MiB and {} descriptors with {connections} connections",
        memory(pid) >> 20,
        descriptors(pid)
    );
    let (status, said) = held.finish(LONG).unwrap();
    assert!(status.success(), "{said}");
    eventually("the connections' descriptors are closed", LONG, || {
        let open = descriptors(pid);
        if open < 2000 { Ok(()) } else { Err(format!("{open} open")) }
    })
    .unwrap();
}

/// Neither who does not read what he asked for nor who writes to one that does not read costs the
/// proxy more than its buffers.
#[test]
fn slow_readers_cost_bounded_memory() {
    let stage = stage();
    let to: SocketAddr = (stage.actor("two").pod.addresses()[0], LINES).into();
    let pid = stage.proxy.as_ref().unwrap().pid();
    let before = memory(pid);
    let words = ["pull", &to.to_string(), &STALLED.to_string(), &STALLED_BYTES.to_string()];
    let pull = stage.in_pod("one", &words).unwrap();
    pull.line("asked", LONG).unwrap();
    let push = stage.in_pod("one", &["push", &to.to_string(), &STALLED.to_string()]).unwrap();
    let taken = push.line("taken", LONG).unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    let taken: u64 = taken.split(' ').nth(1).unwrap().parse().unwrap();
    let cost = memory(pid).saturating_sub(before);
    eprintln!(
        "{} MiB for {STALLED} stalled readers and as many writers, who got rid of {} MiB",
        cost >> 20,
        taken >> 20
    );
    assert!(cost < MEMORY_MAX, "{} MiB", cost >> 20);
    // Written without end to nobody: what is between the two must have an end.
    assert!(taken < STALLED as u64 * STALLED_BYTES, "{taken} bytes were taken");
    drop((pull, push));
    // A reader that was slow gets it all in the end, as it was sent.
    let mut late = stage.in_pod("one", &["pull", &to.to_string(), "4", &(16_u64 << 20).to_string()]).unwrap();
    late.line("asked", LONG).unwrap();
    late.tell("read").unwrap();
    late.line("whole", LONG).unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
}
