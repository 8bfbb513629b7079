//! A pod that may change its own network namespace (CAP_NET_ADMIN) says there that it is somebody else.
//! What it says of itself is not what others believe.

use std::net::IpAddr;

use demo::pods::{Pod, Stack};
use tests::node::{LINES, Options, Program, SOON, Stage, eventually};

use crate::scripts::python_in;

fn stage() -> Stage {
    let mut stage = Stage::new(Options::default()).unwrap();
    for (name, enrolled) in
        [("captured", true), ("client", true), ("outside", false), ("thief", true), ("stranger", false)]
    {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    stage
}

fn ip(pod: &Pod, words: &str) {
    let mut command = pod.command("ip");
    command.args(words.split(' '));
    Program::run("ip", command, SOON).unwrap();
}

/// Gives a pod an address, as it can itself.
fn claim(pod: &Pod, address: IpAddr) {
    match address {
        IpAddr::V4(address) => ip(pod, &format!("addr add {address}/32 dev eth0")),
        IpAddr::V6(address) => ip(pod, &format!("addr add {address}/128 dev eth0 nodad")),
    }
}

/// Longer than the agent takes to look at every pod again.
fn looked_at_again() {
    std::thread::sleep(std::time::Duration::from_secs(4));
}

/// Others' connections go where they went before.
#[test]
fn a_pod_that_takes_anothers_address_gets_none_of_its_connections() {
    let stage = stage();
    let mut wrong = Vec::new();
    let mut to: Vec<(&str, IpAddr)> = Vec::new();
    for name in ["captured", "outside"] {
        let actor = stage.actor(name);
        to.extend(actor.pod.addresses().into_iter().map(|address| (name, address)));
        to.push((name, actor.service.into()));
    }
    for (_, address) in &to {
        claim(&stage.actor("thief").pod, *address);
    }
    looked_at_again();
    for (name, address) in to {
        let said = stage.ask(&stage.actor("client").pod, (address, LINES).into());
        if !said.starts_with(&format!("through {name} ")) {
            wrong.push(format!("{name} at {address}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", stage.told());
}

/// The address by which it is known to policies stays its own.
#[test]
fn a_pod_that_takes_anothers_address_does_not_speak_in_its_name() {
    let stage = stage();
    let thief = stage.actor("thief");
    let own = thief.pod.addresses();
    for address in stage.actor("outside").pod.addresses() {
        claim(&thief.pod, address);
        // The first of its addresses, and the one that the kernel would choose.
        if address.is_ipv4() {
            ip(
                &thief.pod,
                &format!("route replace default via {} src {address}", thief.pod.gateway_v4().unwrap()),
            );
        }
    }
    looked_at_again();
    for address in stage.actor("captured").pod.addresses() {
        let said = stage.ask(&thief.pod, (address, LINES).into());
        let seen = said.split(' ').nth(2).and_then(|peer| peer.parse::<std::net::SocketAddr>().ok());
        assert!(seen.is_some_and(|seen| own.contains(&seen.ip())), "to {address}: {said}, not from {own:?}");
    }
}

/// What a pod has in its namespace is its own matter; the agent's message about it has an end.
#[test]
fn a_pod_with_thousands_of_addresses_harms_no_other() {
    let mut stage = stage();
    let mut command = stage.actor("thief").pod.command("sh");
    command.args(["-c", "for a in $(seq 1 20); do for b in $(seq 1 250); do echo addr add 10.99.$a.$b/32 dev eth0; done; done | ip -batch -"]);
    Program::run("ip -batch", command, SOON).unwrap();
    looked_at_again();
    // A proxy that is new has everything from the agent.
    stage.proxy.as_mut().unwrap().kill().unwrap();
    stage.start_proxy().unwrap();
    let client = stage.actor("client");
    for to in stage.actor("captured").pod.addresses() {
        eventually("others are served", SOON, || {
            let said = stage.ask(&client.pod, (to, LINES).into());
            if said.starts_with("through captured") { Ok(()) } else { Err(said) }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    }
}

/// A pod with CAP_NET_RAW and CAP_NET_ADMIN gives its server what arrives, past the proxy: its answer to a
/// SYN is stopped, whichever way the SYN came to it.
#[test]
fn a_pods_own_answer_to_a_connection_from_outside_goes_nowhere() {
    for to in [0, 1] {
        let stage = stage();
        let thief = stage.actor("thief");
        let to = thief.pod.addresses()[to];
        let mut command = python_in(&thief.pod, "inject.py");
        command.args([to.to_string(), LINES.to_string()]);
        let injector = Program::start("inject.py", command).unwrap();
        injector.line("ready", SOON).unwrap();
        let said = stage.ask(&stage.actor("outside").pod, (to, LINES).into());
        assert!(said.starts_with("error"), "{to}: {said}\n{}", stage.told());
    }
}

/// Under a flood of SYNs the proxy's listener answers without a socket; such answers are let out.
#[test]
fn syn_cookies_of_the_proxys_listener_reach_their_client() {
    let stage = stage();
    let captured = stage.actor("captured");
    let mut command = captured.pod.command("sh");
    command.args(["-c", "echo 2 > /proc/sys/net/ipv4/tcp_syncookies"]);
    Program::run("sysctl", command, SOON).unwrap();
    for to in captured.pod.addresses() {
        let said = stage.ask(&stage.actor("outside").pod, (to, LINES).into());
        assert!(said.starts_with("through captured"), "{to}: {said}\n{}", stage.told());
    }
}

/// One pod's interfaces are not what the others wait for.
#[test]
fn a_pod_with_a_thousand_interfaces_does_not_hold_up_the_agent() {
    let mut stage = stage();
    let mut command = stage.actor("thief").pod.command("sh");
    let pairs = "for n in $(seq 1 600); do echo link add a$n type veth peer name b$n; done | ip -batch -";
    command.args(["-c", pairs]);
    Program::run("ip -batch", command, SOON * 4).unwrap();
    let to = stage.actor("outside").pod.addresses()[0];
    for (enrolled, way) in [(true, "through"), (false, "past")] {
        stage.label("stranger", enrolled).unwrap();
        stage.until_way(stage.actor("stranger"), to, way).unwrap();
    }
    // However many there are, a few are guarded: those that were there first among them.
    let mut pins = std::process::Command::new("find");
    pins.arg(stage.node.pins()).args(["-name", "guard_*"]);
    let guards = Program::run("find", pins, SOON).unwrap().lines().count();
    assert!((3..200).contains(&guards), "{guards} guards");
}
