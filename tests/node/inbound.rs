//! What reaches a captured pod, from where, and what does not.

use std::net::{IpAddr, SocketAddr};

use demo::pods::Stack;
use tests::node::{Actor, HTTP, INNER, LINES, Options, Stage};

const DENY_SECRET: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: pods}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret*], ports: [\"7003\"]}}]}]}
";
const NOBODY: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: pods}
spec: {}
";

fn stage(capture: &str) -> Stage {
    let mut stage = Stage::new(Options { capture: capture.to_owned(), ..Options::default() }).unwrap();
    for (name, enrolled) in [("one", true), ("two", true), ("outside", false), ("stranger", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage
}

fn ask(stage: &Stage, from: &str, to: IpAddr, port: u16) -> String {
    stage.ask(&stage.actor(from).pod, SocketAddr::from((to, port)))
}

/// A port on which a pod listens for itself stays its own.
#[test]
fn ports_on_loopback_alone_are_not_exposed() {
    let mut stage = stage("");
    stage.start().unwrap();
    for to in stage.actor("two").pod.addresses() {
        for from in ["one", "outside"] {
            let said = ask(&stage, from, to, INNER);
            assert!(said.starts_with("error"), "{from} to {to}: {said}");
        }
        // By its own address neither, as without capture.
        let said = ask(&stage, "two", to, INNER);
        assert!(said.starts_with("error"), "two to {to}: {said}");
    }
    // And by the loopback address, to which no proxy belongs.
    for to in ["127.0.0.1", "::1"] {
        let said = ask(&stage, "two", to.parse().unwrap(), INNER);
        assert!(said.starts_with("past two"), "two to {to}: {said}");
    }
}

#[test]
fn a_pod_reaches_itself_by_its_address_and_by_its_service() {
    let mut stage = stage("");
    stage.start().unwrap();
    let actor = stage.actor("one");
    let mut to: Vec<IpAddr> = actor.pod.addresses();
    to.push(actor.service.into());
    for to in to {
        let said = ask(&stage, "one", to, LINES);
        assert!(said.starts_with("through one"), "{to}: {said}\n{}", stage.told());
    }
    // A service's port leads to its target port, a neighbour's as one's own.
    for (name, service) in [("one", stage.actor("one").service), ("two", stage.actor("two").service)] {
        let said = ask(&stage, "one", service.into(), 70);
        assert!(said.starts_with(&format!("through {name}")), "{service}: {said}\n{}", stage.told());
    }
}

#[test]
fn a_pod_without_the_label_is_untouched() {
    let mut stage = stage("");
    stage.start().unwrap();
    for to in stage.actor("outside").pod.addresses() {
        let said = ask(&stage, "stranger", to, LINES);
        assert!(said.starts_with("past outside"), "{to}: {said}");
        let said = ask(&stage, "one", to, LINES);
        assert!(said.starts_with("through outside"), "{to}: {said}");
        let own = stage.actor("one").pod.addresses();
        let seen = said.split(' ').nth(2).and_then(|peer| peer.parse::<SocketAddr>().ok());
        assert!(seen.is_some_and(|seen| own.contains(&seen.ip())), "{said}: not from {own:?}");
    }
}

#[test]
fn policies_decide_about_what_reaches_a_captured_pod() {
    let mut stage = stage("");
    stage.policies(DENY_SECRET).unwrap();
    stage.start().unwrap();
    let get = |to: &Actor, path: &str| {
        stage.get((to.pod.v4().unwrap(), HTTP).into(), path).map(|(status, _)| status).unwrap_or(0)
    };
    assert_eq!(get(stage.actor("two"), "/open"), 200, "{}", stage.told());
    assert_eq!(get(stage.actor("two"), "/secret"), 403);
    assert_eq!(get(stage.actor("outside"), "/secret"), 200);
    stage.policies(NOBODY).unwrap();
    tests::node::eventually("raw TCP to it is refused", tests::node::SOON, || {
        let said = ask(&stage, "one", stage.actor("two").pod.addresses()[0], LINES);
        if said.starts_with("error") { Ok(()) } else { Err(said) }
    })
    .unwrap();
}

fn probe(stage: &Stage, path: &str) -> String {
    let to = stage.actor("two").pod.v4().unwrap();
    match stage.get((to, HTTP).into(), path) {
        Ok((status, _)) => status.to_string(),
        Err(error) => format!("error {error}"),
    }
}

/// A policy that admits nobody: the declared probe of the node passes, and nothing else of the node.
#[test]
fn the_nodes_probes_reach_a_pod_that_admits_nobody() {
    let mut stage = stage("");
    for actor in &mut stage.actors {
        actor.probes = format!("    livenessProbe: {{httpGet: {{path: /alive, port: {HTTP}}}}}\n");
    }
    stage.policies(NOBODY).unwrap();
    stage.start_uncaptured().unwrap();
    tests::node::eventually("the probe passes", tests::node::SOON, || {
        let said = probe(&stage, "/alive");
        if said == "200" { Ok(()) } else { Err(said) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    tests::node::eventually("anything else of the node is denied", tests::node::SOON, || {
        let said = probe(&stage, "/other");
        if said == "403" { Ok(()) } else { Err(said) }
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
    assert_eq!(probe(&stage, "/alive"), "200");
}

#[test]
fn all_or_nothing_of_the_node_may_pass_where_the_setting_says_so() {
    for (setting, expected) in [("all", "200"), ("none", "403")] {
        let mut stage = stage(&format!("  host: {setting}\n"));
        for actor in &mut stage.actors {
            actor.probes = format!("    livenessProbe: {{httpGet: {{path: /alive, port: {HTTP}}}}}\n");
        }
        stage.policies(NOBODY).unwrap();
        stage.start_uncaptured().unwrap();
        // Captured once somebody else is refused, who would reach the server otherwise.
        tests::node::eventually("it is captured", tests::node::SOON, || {
            let said = ask(&stage, "outside", stage.actor("two").pod.addresses()[0], LINES);
            if said.starts_with("error") { Ok(()) } else { Err(said) }
        })
        .unwrap();
        tests::node::eventually(setting, tests::node::SOON, || {
            let said = probe(&stage, "/alive");
            if said == expected { Ok(()) } else { Err(said) }
        })
        .unwrap_or_else(|error| panic!("{setting}: {error}\n{}", stage.told()));
    }
}

/// The proxy's ends of connections have the application's port; a server that is started again has it too.
#[test]
fn a_server_takes_its_port_again_while_connections_to_it_are_open() {
    let mut stage = stage("");
    stage.start().unwrap();
    let to = SocketAddr::from((stage.actor("two").pod.addresses()[0], LINES));
    let held = stage.in_pod("outside", &["hold", &to.to_string(), "3"]).unwrap();
    held.line("held 3", tests::node::SOON).unwrap();
    let load = stage.in_pod("outside", &["load", &to.to_string(), "4", "new"]).unwrap();
    load.line("well", tests::node::SOON).unwrap();
    for _ in 0..5 {
        let two = stage.actors.iter_mut().find(|actor| actor.pod.name() == "two").unwrap();
        two.server.as_mut().unwrap().kill().unwrap();
        load.line("ill", tests::node::SOON).unwrap();
        let again = stage.in_pod("two", &["serve", "two", &LINES.to_string()]).unwrap();
        again.line("ready", tests::node::SOON).unwrap_or_else(|error| panic!("{error}\n{}", stage.told()));
        load.line("well", tests::node::SOON).unwrap();
        stage.actors.iter_mut().find(|actor| actor.pod.name() == "two").unwrap().server = Some(again);
    }
}
