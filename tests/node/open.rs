//! Without capture: the pods' network works, and every attack and the sniffer do what they are for.
//! What is not seen to leave a pod here would prove nothing where it is not to leave one.

use std::time::Duration;

use demo::pods::{Node, Stack};
use tests::node::{Attacks, Program, in_pod};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_attack_leaves_a_pod_that_is_not_captured() {
    let node = Node::new().unwrap();
    let attacker = node.pod("attacker", Stack::Dual).unwrap();
    let server = node.pod("server", Stack::Dual).unwrap();
    let mut command = server.command(in_pod().unwrap());
    command.args(["serve", "server", "7000"]);
    let serving = Program::start("in-pod serve", command).unwrap();
    serving.line("ready", SOON).unwrap();
    let mut command = server.command(in_pod().unwrap());
    command.args(["names", "server", "192.0.2.1"]);
    let names = Program::start("in-pod names", command).unwrap();
    names.line("ready", SOON).unwrap();

    for to in server.addresses() {
        let other = if to.is_ipv6() { "fd77:0:0:99::9" } else { "10.77.200.9" };
        let attacks = Attacks::from_pod(&attacker, to, 7000, other.parse().unwrap()).unwrap();
        let all = attacks.names().unwrap();
        let attempts = attacks.run(&all, |python| Ok(attacker.command(python)), node.namespace()).unwrap();
        let silent: Vec<_> =
            attempts.iter().filter(|attempt| attempt.wire == 0 || attempt.taken == 0).collect();
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
