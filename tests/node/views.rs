//! What applications see of captured connections and of their names.

use demo::pods::Stack;
use tests::node::{Actor, LINES, Options, SOON, Stage};

use crate::scripts::{failures, python_in};

fn options() -> Options {
    Options { capture: "  detectTimeoutMs: 300\n".to_owned(), ..Options::default() }
}

fn views(stage: &Stage, from: &Actor, to: &Actor) -> Vec<String> {
    let mut failed = Vec::new();
    for address in to.pod.addresses() {
        let own = from.pod.addresses().into_iter().find(|own| own.is_ipv6() == address.is_ipv6());
        let Some(own) = own else { continue };
        let mut command = python_in(&from.pod, "views.py");
        // Of a connection to itself a pod's server sees this one: its own cannot be had twice.
        let seen = match (from.pod.name() == to.pod.name(), own.is_ipv6()) {
            (true, false) => "127.0.0.6".to_owned(),
            (true, true) => "::6".to_owned(),
            (false, _) => own.to_string(),
        };
        command.args([address.to_string(), LINES.to_string(), own.to_string(), seen]);
        command.arg(if from.enrolled || to.enrolled { "proxied" } else { "direct" });
        let name = format!("{} to {} {address}", from.pod.name(), to.pod.name());
        failed.extend(failures(&name, command, 16));
    }
    if !failed.is_empty() {
        failed.push(stage.told());
    }
    failed
}

/// Captured to captured (one hop), captured to outside, outside to captured, to itself; and, so that
/// nothing is asked that a plain network does not give, outside to outside.
#[test]
fn applications_see_what_they_would_see_without_the_proxy() {
    let mut stage = Stage::new(options()).unwrap();
    for (name, enrolled) in [("one", true), ("two", true), ("outside", false), ("stranger", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    let mut failed = Vec::new();
    let pairs =
        [("stranger", "outside"), ("one", "two"), ("one", "outside"), ("outside", "one"), ("one", "one")];
    for (from, to) in pairs {
        failed.extend(views(&stage, stage.actor(from), stage.actor(to)));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn pods_of_one_address_family_are_captured_as_well() {
    let mut stage = Stage::new(options()).unwrap();
    for (name, stack) in [("four", Stack::V4), ("six", Stack::V6), ("both", Stack::Dual)] {
        stage.pod(name, stack, true).unwrap();
    }
    stage.start().unwrap();
    let mut failed = Vec::new();
    for (from, to) in [("four", "both"), ("both", "four"), ("six", "both"), ("both", "six")] {
        failed.extend(views(&stage, stage.actor(from), stage.actor(to)));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The switch off: the server sees an address of the proxy's, and all else is as before.
#[test]
fn without_the_transparent_source_the_server_sees_one_of_the_proxys() {
    let capture = "  transparentSource: false\n".to_owned();
    let mut stage = Stage::new(Options { capture, ..Options::default() }).unwrap();
    for (name, enrolled) in [("one", true), ("two", true), ("outside", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    for from in ["one", "outside"] {
        for to in stage.actor("two").pod.addresses() {
            let said = stage.ask(&stage.actor(from).pod, (to, LINES).into());
            let peer: Option<std::net::SocketAddr> =
                said.strip_prefix("through two ").and_then(|rest| rest.split(' ').next()?.parse().ok());
            let peer = peer.unwrap_or_else(|| panic!("{from} to {to}: {said}\n{}", stage.told()));
            assert!(["127.0.0.6", "::6"].contains(&peer.ip().to_string().as_str()), "{from} to {to}: {said}");
        }
    }
}

#[test]
fn names_are_asked_through_the_proxy_and_answered_by_whom_they_were_asked() {
    let mut stage = Stage::new(Options::default()).unwrap();
    stage.pod("asker", Stack::Dual, true).unwrap();
    let servers = ["first", "second", "third", "fourth"];
    for name in servers {
        stage.pod(name, Stack::Dual, false).unwrap();
    }
    stage.pod("stranger", Stack::Dual, false).unwrap();
    stage.start().unwrap();
    let mut running = Vec::new();
    for (number, name) in servers.iter().enumerate() {
        let program = stage.in_pod(name, &["names", name, &format!("192.0.2.{}", number + 1)]).unwrap();
        program.line("ready", SOON).unwrap();
        running.push(program);
    }
    let asker = &stage.actor("asker").pod;
    let mut failed = Vec::new();
    for family in 0..2 {
        let address = |name: &str| stage.actor(name).pod.addresses()[family].to_string();
        let mut command = python_in(asker, "names.py");
        command.args([address("first"), "192.0.2.1".into(), address("second"), "192.0.2.2".into()]);
        command.args([address("third"), address("fourth")]);
        failed.extend(failures("names.py", command, if family == 0 { 9 } else { 7 }));
    }
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), stage.told());
    // The server saw the pod's own address, from a port that was the proxy's.
    let own = asker.v4().unwrap().to_string();
    assert!(running[0].said().contains(&own), "{}", running[0].said());
}
