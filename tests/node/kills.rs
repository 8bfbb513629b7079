//! Killed and replaced under load.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use demo::pods::Stack;
use tests::node::{CLIENT_PORTS, LINES, Options, Program, SOON, Sniffer, Stage};

const KILLS: u32 = 100;
const UPGRADES: u32 = 10;
/// How long the proxy may drain in these tests.
const DRAIN: Duration = Duration::from_secs(120);

/// `one` and `two` are captured, `outside` is not.
fn stage() -> Stage {
    let mut stage = Stage::new(Options::default()).unwrap();
    for (name, enrolled) in [("one", true), ("two", true), ("outside", false), ("stranger", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    stage
}

fn load(stage: &Stage, from: &str, to: &str, family: usize, kind: &str) -> Program {
    let to: SocketAddr = (stage.actor(to).pod.addresses()[family], LINES).into();
    let (to, first) = (to.to_string(), CLIENT_PORTS.start.to_string());
    let mut words = vec!["load", &to, "2", kind];
    if from != "outside" {
        words.push(&first);
    }
    let program = stage.in_pod(from, &words).unwrap();
    program.line("well", SOON).unwrap_or_else(|error| panic!("{from} to {to}: {error}\n{}", stage.told()));
    program
}

/// `end DONE FAILED WHY`.
fn ended(program: Program) -> (u64, u64, String) {
    let (_, said) = program.finish(SOON * 4).unwrap();
    let last = said.lines().find(|line| line.starts_with("end ")).unwrap_or_default().to_owned();
    let mut words = last.splitn(4, ' ').skip(1);
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let (done, failed) = (number(), number());
    (done, failed, words.next().unwrap_or_default().to_owned())
}

/// What the sniffer is for it sees: a pod that is not captured connects from such a port.
fn the_eye_is_open(stage: &Stage, eye: &Sniffer) {
    let before = eye.frames().len();
    let to: SocketAddr = (stage.actor("outside").pod.addresses()[0], LINES).into();
    let said = stage.ask(&stage.actor("stranger").pod, to);
    assert!(said.starts_with("past outside"), "{said}");
    tests::node::eventually("the eye sees what is past", SOON, || {
        if eye.frames().len() > before { Ok(()) } else { Err("nothing".to_owned()) }
    })
    .unwrap();
}

/// Kills the proxy, the agent, or both, a hundred times. Of the load, connections may fail while
/// nobody serves them; none may go past, none may hang, and service is back.
#[test]
fn a_hundred_kills_let_nothing_past_and_service_comes_back() {
    let mut stage = stage();
    let eye = Sniffer::strays(stage.node.namespace()).unwrap();
    let loads = [
        load(&stage, "one", "two", 0, "new"),
        load(&stage, "one", "outside", 0, "new"),
        load(&stage, "one", "outside", 1, "new"),
        load(&stage, "two", "one", 1, "kept"),
    ];
    let mut back = Vec::new();
    for kill in 0..KILLS {
        // Both together as often as either alone.
        let (proxy, agent) = (kill % 3 != 1, kill % 3 != 0);
        if proxy {
            stage.proxy.as_mut().unwrap().kill().unwrap();
        }
        if agent {
            stage.agent.as_mut().unwrap().kill().unwrap();
        }
        // Long enough that the load has tried.
        thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        if agent {
            stage.start_agent().unwrap();
        }
        if proxy {
            stage.start_proxy().unwrap();
        }
        stage.until_captured().unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        back.push(began.elapsed());
    }
    back.sort();
    eprintln!("service back after {:?} (median), {:?} (longest)", back[back.len() / 2], back[back.len() - 1]);
    for program in loads {
        let (done, failed, why) = ended(program);
        eprintln!("done {done}, failed {failed}: {why}");
        assert!(done > u64::from(KILLS), "the load did not load: {done} done, {failed} failed, {why}");
        assert_ne!(why, "hangs");
    }
    let strays = eye.frames();
    assert!(strays.is_empty(), "{} frames past the proxy, one is {:02x?}", strays.len(), strays.first());
    the_eye_is_open(&stage, &eye);
}

/// A second proxy takes over while the first drains: no connection fails, new or old.
#[test]
fn ten_upgrades_under_load_fail_nothing() {
    let mut stage = stage();
    let eye = Sniffer::strays(stage.node.namespace()).unwrap();
    let loads = [
        load(&stage, "one", "two", 0, "new"),
        load(&stage, "one", "outside", 1, "new"),
        load(&stage, "outside", "two", 0, "new"),
    ];
    for upgrade in 0..UPGRADES {
        // One under way, which ends of its own within the drain limit.
        let to: SocketAddr = (stage.actor("two").pod.addresses()[0], LINES).into();
        let mut held = stage.in_pod("one", &["hold", &to.to_string(), "5"]).unwrap();
        held.line("held 5", SOON).unwrap();
        let old = stage.start_proxy().unwrap().unwrap();
        // Superseded, the old one ends its listening; what it holds it serves on.
        tests::node::eventually("the new proxy serves", SOON, || match stage_serves(&stage) {
            true => Ok(()),
            false => Err(stage.told()),
        })
        .unwrap_or_else(|error| panic!("upgrade {upgrade}: {error}"));
        held.tell("again").unwrap();
        held.line("held 5", SOON)
            .unwrap_or_else(|error| panic!("upgrade {upgrade} cut what was under way: {error}"));
        held.end_input();
        drop(held);
        let (status, said) = old
            .finish(DRAIN)
            .unwrap_or_else(|error| panic!("upgrade {upgrade}: the old proxy does not end: {error}"));
        assert!(status.success(), "upgrade {upgrade}: the old proxy ended with {status}: {said}");
    }
    for program in loads {
        let (done, failed, why) = ended(program);
        assert_eq!(failed, 0, "{failed} of {done} failed: {why}\n{}", stage.told());
        assert!(done > u64::from(UPGRADES), "the load did not load: {done}");
    }
    assert!(eye.frames().is_empty(), "{} frames past the proxy", eye.frames().len());
    the_eye_is_open(&stage, &eye);
}

/// The newer proxy is ready. Both listen on the admin port in turn, so it is asked by its log.
fn stage_serves(stage: &Stage) -> bool {
    stage.until_captured().is_ok()
}
