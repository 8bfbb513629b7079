//! A process of the pod that listens where the proxy does.

use demo::pods::Stack;
use tests::node::{LINES, Options, Program, SOON, Stage};

use crate::scripts::python_in;

/// As often as `squat.py` asks each place.
const TIMES: usize = 30;

fn stage() -> Stage {
    let mut stage = Stage::new(Options::default()).unwrap();
    for (name, enrolled) in [("squatter", true), ("captured", true), ("outside", false)] {
        stage.pod(name, Stack::Dual, enrolled).unwrap();
    }
    stage.start().unwrap();
    stage
}

fn number(said: &str, word: &str) -> usize {
    let line = said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("{said}"));
    line.trim().parse().unwrap()
}

fn squat(stage: &Stage, words: &[String]) -> String {
    let mut command = python_in(&stage.actor("squatter").pod, "squat.py");
    command.args(words);
    Program::run("squat.py", command, SOON * 6).unwrap()
}

#[test]
fn a_squatter_on_the_proxys_port_takes_no_connection_whether_the_proxy_lives_or_not() {
    let mut stage = stage();
    let mut words = vec!["tcp".to_owned()];
    for to in [stage.actor("outside"), stage.actor("captured")] {
        for address in to.pod.addresses() {
            words.extend([address.to_string(), LINES.to_string()]);
        }
    }
    let places = words.len() / 2;
    let said = squat(&stage, &words);
    assert!(said.contains("bound 127.0.0.1 15001"), "the squatter did not squat: {said}");
    assert_eq!(number(&said, "taken"), 0, "{said}");
    assert_eq!(number(&said, "asked"), places * TIMES, "{said}\n{}", stage.told());

    stage.proxy.as_mut().unwrap().kill().unwrap();
    let said = squat(&stage, &words);
    assert!(said.contains("bound 127.0.0.1 15001"), "the squatter did not squat: {said}");
    assert_eq!((number(&said, "taken"), number(&said, "asked")), (0, 0), "{said}");
}

#[test]
fn a_squatter_on_the_ports_for_names_takes_no_query() {
    let stage = stage();
    let names = stage.in_pod("outside", &["names", "outside", "192.0.2.1"]).unwrap();
    names.line("ready", SOON).unwrap();
    for server in stage.actor("outside").pod.addresses() {
        let said = squat(&stage, &["udp".to_owned(), server.to_string()]);
        assert!(number(&said, "ports") > 0, "the proxy has no ports for names: {said}");
        assert_eq!(number(&said, "taken"), 0, "{said}");
        assert_eq!(number(&said, "asked"), TIMES, "{said}\n{}", stage.told());
    }
}
