//! Clients that know nothing of any of this, from a captured pod to a captured one.

use std::process::Command;

use demo::pods::Stack;
use tests::node::{HTTP, LINES, Options, Program, SOON, Stage, postgres, psql};

use crate::scripts::{LIMIT, failures, python_in, script};

const DENY_SECRET: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: pods}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret*], ports: [\"7003\"]}}]}]}
";

fn stage() -> Stage {
    let mut stage = Stage::new(Options::default()).unwrap();
    for name in ["client", "server"] {
        stage.pod(name, Stack::Dual, true).unwrap();
    }
    stage.policies(DENY_SECRET).unwrap();
    stage.start().unwrap();
    stage
}

/// `URL HOST PORT` for each way to reach the server.
fn ways(stage: &Stage) -> Vec<[String; 3]> {
    let server = stage.actor("server");
    let mut ways = vec![server.service.to_string()];
    ways.extend(server.pod.addresses().iter().map(ToString::to_string));
    ways.into_iter()
        .map(|host| {
            let authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            [format!("http://{authority}:{HTTP}"), host, LINES.to_string()]
        })
        .collect()
}

fn no_failures(stage: &Stage, failed: &[String]) {
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), stage.told());
}

#[test]
fn curl() {
    let stage = stage();
    for [url, _, _] in ways(&stage) {
        for (path, expected) in [("/open", "200"), ("/secret", "403")] {
            let mut command = stage.actor("client").pod.command("curl");
            command.args([
                "--globoff",
                "--noproxy",
                "*",
                "-sS",
                "-m",
                "60",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{remote_ip}",
            ]);
            command.arg(format!("{url}{path}"));
            let said = Program::run("curl", command, SOON * 3).unwrap();
            let (status, address) = said.trim().split_once(' ').unwrap();
            assert_eq!(status, expected, "{url}{path}\n{}", stage.told());
            assert!(url.contains(address), "curl was at {address}, not at {url}");
        }
    }
}

#[test]
fn python_blocking_and_with_asyncio() {
    let stage = stage();
    let mut failed = Vec::new();
    for way in ways(&stage) {
        let mut command = python_in(&stage.actor("client").pod, "plain.py");
        command.args(&way);
        failed.extend(failures(&format!("plain.py {}", way[1]), command, 4));
    }
    no_failures(&stage, &failed);
}

#[test]
fn java() {
    let stage = stage();
    let folder = stage.node.folder().join("java");
    let mut compiler = Command::new("javac");
    compiler.arg("-d").arg(&folder).arg(script("Client.java"));
    Program::run("javac", compiler, LIMIT).unwrap();
    let mut failed = Vec::new();
    for way in ways(&stage) {
        // As Java prints IPv6 addresses: whole.
        let way = if way[1].contains(':') { way.map(|word| whole(&word)) } else { way };
        let mut command = stage.actor("client").pod.command("java");
        command.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(&folder).arg("Client").args(&way);
        failed.extend(failures(&format!("Client.java {}", way[1]), command, 4));
    }
    no_failures(&stage, &failed);
}

/// An IPv6 address without `::`.
fn whole(word: &str) -> String {
    let bare = word.parse::<std::net::Ipv6Addr>();
    bare.map_or_else(
        |_| word.to_owned(),
        |address| address.segments().map(|part| format!("{part:x}")).to_vec().join(":"),
    )
}

#[test]
fn go() {
    let stage = stage();
    let program = stage.node.folder().join("client");
    let mut compiler = Command::new("go");
    compiler.env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local").env("GOPROXY", "off");
    compiler.arg("build").arg("-o").arg(&program).arg(script("client.go"));
    Program::run("go build", compiler, LIMIT).unwrap();
    let mut failed = Vec::new();
    for way in ways(&stage) {
        let mut command = stage.actor("client").pod.command(&program);
        command.args(&way);
        failed.extend(failures(&format!("client.go {}", way[1]), command, 3));
    }
    no_failures(&stage, &failed);
}

#[test]
fn netcat() {
    let stage = stage();
    for [_, host, port] in ways(&stage) {
        let mut command = stage.actor("client").pod.command("nc");
        // -N: half-close at the end of the input.
        command.args(["-N", "-w", "60", &host, &port]);
        let mut program = Program::start("nc", command).unwrap();
        program.tell("who").unwrap();
        program.tell("and an echo").unwrap();
        let (status, said) = program.finish(SOON * 3).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let good = matches!(lines.as_slice(), [who, "and an echo"] if who.starts_with("server "));
        assert!(status.success() && good, "{host}: {status} {said}\n{}", stage.told());
    }
}

#[test]
fn postgresql() {
    let mut stage = Stage::new(Options::default()).unwrap();
    for name in ["client", "server"] {
        stage.pod(name, Stack::Dual, true).unwrap();
    }
    let server = postgres(&stage.actor("server").pod, &stage.node.folder().join("postgres")).unwrap();
    stage.start().unwrap();
    let to = stage.actor("server");
    for host in to.pod.addresses() {
        let question = "select sum(n) from generate_series(1, 100000) as n; select repeat('x', 100000);";
        let command = psql(&stage.actor("client").pod, &host.to_string(), &["-c", question]);
        let said = Program::run("psql", command, SOON * 3)
            .unwrap_or_else(|error| panic!("{host}: {error}\n{}\n{}", server.said(), stage.told()));
        let mut lines = said.lines();
        assert_eq!(lines.next(), Some("5000050000"), "{host}");
        assert_eq!(lines.next().map(str::len), Some(100_000), "{host}");
    }
}
