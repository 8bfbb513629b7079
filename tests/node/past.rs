//! Every way round the proxy, from a captured pod: none leaves it, with agent and proxy alive and
//! without them. That each would leave a pod nobody captures is shown in `open.rs`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use demo::pods::Stack;
use tests::node::{Attacks, Attempt, LINES, Options, Program, Result, SOON, Stage, in_pod};

/// Nobody's, to speak in his name.
const OTHER_4: &str = "10.77.200.9";
const OTHER_6: &str = "fd77:0:0:99::9";

/// `attacker` and `captured` are captured, `outside` and `stranger` are not; `outside` answers names.
struct World {
    stage: Stage,
    _names: Program,
}

impl World {
    fn new() -> Self {
        let mut stage = Stage::new(Options::default()).unwrap();
        for (name, enrolled) in
            [("attacker", true), ("captured", true), ("outside", false), ("stranger", false)]
        {
            stage.pod(name, Stack::Dual, enrolled).unwrap();
        }
        stage.start().unwrap();
        let names = stage.in_pod("outside", &["names", "outside", "192.0.2.1"]).unwrap();
        names.line("ready", SOON).unwrap();
        Self { stage, _names: names }
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.stage.actor(name).pod.addresses()
    }

    /// Every attack at `to`, from wherever `start` makes it start; those that left are given back.
    fn past(&self, to: IpAddr, first_port: u16, start: &Start<'_>) -> Vec<Attempt> {
        let attacker = &self.stage.actor("attacker").pod;
        let other = if to.is_ipv6() { OTHER_6 } else { OTHER_4 };
        let mut attacks = Attacks::from_pod(attacker, to, LINES, other.parse().unwrap()).unwrap();
        attacks.first_port = first_port;
        let all = attacks.names().unwrap();
        let attempts = attacks.run(&all, start, self.stage.node.namespace()).unwrap();
        attempts.into_iter().filter(Attempt::is_past).collect()
    }

    /// From inside, from a nested cgroup, from a cgroup of nobody's and from another captured pod's: at
    /// once, each with ports of its own.
    fn nothing_leaves(&self, when: &str) {
        let attacker = &self.stage.actor("attacker").pod;
        let moved = self.stage.node.cgroup_of(demo::pods::Place::Other);
        let foreign = self.stage.actor("captured").pod.cgroup();
        let entered = |cgroup: &Path, python: &PathBuf| {
            Ok(self.stage.node.command_in(attacker.namespace(), cgroup, python))
        };
        let whence: [(&str, &Start<'_>); 4] = [
            ("inside", &|python| Ok(attacker.command(python))),
            ("nested cgroup", &|python| Ok(attacker.command_below("nested/deeper", python)?)),
            ("cgroup of nobody", &|python| entered(&moved, python)),
            ("cgroup of another pod", &|python| entered(foreign, python)),
        ];
        let mut left = Vec::new();
        for to in self.addresses("outside").into_iter().chain(self.addresses("captured")) {
            thread::scope(|scope| {
                let running: Vec<_> = (5000..)
                    .step_by(200)
                    .zip(&whence)
                    .map(|(first, (name, start))| (name, scope.spawn(move || self.past(to, first, *start))))
                    .collect();
                for (name, found) in running {
                    let found = found.join().unwrap();
                    left.extend(found.iter().map(|attempt| format!("{when}, {name}, to {to}: {attempt:?}")));
                }
            });
        }
        assert!(left.is_empty(), "{} left the pod:\n{}\n{}", left.len(), left.join("\n"), self.stage.told());
    }
}

/// How the attacks' Python is started.
type Start<'a> = dyn Fn(&PathBuf) -> Result<Command> + Sync + 'a;

#[test]
fn nothing_leaves_a_captured_pod_past_the_proxy() {
    let world = World::new();
    world.nothing_leaves("agent and proxy alive");
    // The tests' own eyes: the pod that is not captured still leaves as it likes.
    let stage = &world.stage;
    let outside = world.addresses("outside");
    let said = stage.ask(&stage.actor("stranger").pod, (outside[0], LINES).into());
    assert!(said.starts_with("past outside"), "{said}");
}

#[test]
fn nothing_leaves_a_captured_pod_when_agent_and_proxy_are_killed() {
    let mut world = World::new();
    world.stage.proxy.as_mut().unwrap().kill().unwrap();
    world.stage.agent.as_mut().unwrap().kill().unwrap();
    world.nothing_leaves("agent and proxy killed");
    let stage = &world.stage;
    let outside = world.addresses("outside");
    let said = stage.ask(&stage.actor("attacker").pod, (outside[0], LINES).into());
    assert!(said.starts_with("error"), "{said}");
    let said = stage.ask(&stage.actor("stranger").pod, (outside[0], LINES).into());
    assert!(said.starts_with("past outside"), "{said}");
}

/// A process of a captured pod enters the namespace of another pod, captured or not, or the node's.
#[test]
fn a_process_of_a_captured_pod_has_no_way_out_of_another_namespace() {
    let world = World::new();
    let stage = &world.stage;
    let cgroup = stage.actor("attacker").pod.cgroup();
    let mut left = Vec::new();
    let places = [
        ("a captured pod", stage.actor("captured").pod.namespace()),
        ("a pod that is not captured", stage.actor("stranger").pod.namespace()),
        ("the node", stage.node.namespace()),
    ];
    for (place, namespace) in places {
        for to in world.addresses("outside") {
            let mut command = stage.node.command_in(namespace, cgroup, in_pod().unwrap());
            command.args(["ask", &SocketAddr::from((to, LINES)).to_string(), "18000"]);
            let (_, said) = Program::start("in-pod ask", command).unwrap().finish(SOON).unwrap();
            if !said.starts_with("error") {
                left.push(format!("{place}, {to}: {said}"));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

/// The process moves itself, as root in a pod may where the cgroup tree is writable.
#[test]
fn a_process_that_moves_to_another_cgroup_is_not_past_the_proxy() {
    let world = World::new();
    let stage = &world.stage;
    let attacker = &stage.actor("attacker").pod;
    let elsewhere = stage.node.cgroup_of(demo::pods::Place::Other);
    fs::metadata(elsewhere.join("cgroup.procs")).unwrap();
    let script = tests::harness::repository().join("tests/node/clients/moves.py");
    for to in world.addresses("outside") {
        for when in ["before", "between"] {
            let mut command = attacker.command(tests::node::python().unwrap());
            command.arg("-BS").arg(&script).arg(&elsewhere).args([when, &to.to_string(), &LINES.to_string()]);
            let said = Program::run("moves.py", command, SOON).unwrap();
            assert!(!said.contains("past"), "{when} {to}: {said}");
        }
    }
}
