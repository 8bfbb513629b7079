//! The request-smuggling corpus against the proxy, with a server behind it that records every byte.
//!
//! The policy permits the cases' own paths and nothing else. Whatever a case sends: the client is
//! answered as the case says, the upstream sees exactly the requests that were judged, each way of
//! reading its bytes finds those requests and no other, and the connections stay in step (a request of
//! somebody else's after each case is answered by its own answer).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, path::PathBuf};

use tests::{
    harness::Proxy,
    smuggling::{
        client::{self, Pace},
        corpus::{Case, Sight, Wanted, own, path, show},
        h2,
        reading::{Seen, Sloppy, strict},
        upstream::Upstream,
    },
};

/// Paths of the corpus begin so, whatever their case.
const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: corpus, namespace: clinic}
spec:
  rules:
  - to: [{operation: {paths: [/p*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: clinic}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin, /admin/*]}}]
";

/// Numbers of what is not in the files: a case sent byte by byte, and what is asked after a case.
const BY_BYTES: usize = 20_000;
const AFTER: usize = 40_000;

struct World {
    proxy: Proxy,
    upstream: Upstream,
    address: SocketAddr,
    faults: Vec<String>,
    asked: usize,
}

/// What the upstream has seen of a case, and the bytes of the connections it came by.
type Sights = BTreeMap<usize, Vec<Seen>>;

impl World {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let settings = format!(
            "listeners:
- {{name: app, address: {{app}}, to: clinic/app, port: 8080, upstream: \"{}\"}}
mesh:
  manifests: [manifests]
  workloads: [{{name: clinic/app, labels: {{app: app}}}}]
",
            upstream.address
        );
        let files = [("manifests/policy.yaml", POLICY)];
        let proxy = Proxy::start(&["app"], &settings, &files).await.unwrap();
        let address = proxy.address("app");
        Self { proxy, upstream, address, faults: Vec::new(), asked: 0 }
    }

    async fn http1(&mut self, case: &Case, number: usize, pace: Pace) {
        let bytes = case.bytes(number);
        let told = client::say(self.address, &bytes, pace, case.answers.len(), case.closes).await;
        let statuses: Vec<u16> = told.answers.iter().map(|answer| answer.0).collect();
        let early = case.ends && (statuses.is_empty() || statuses == [400]);
        if (statuses != case.answers && !early) || !told.rest.is_empty() {
            let (name, wanted) = (&case.name, &case.answers);
            self.faults
                .push(format!("{name} ({pace:?}): answered {statuses:?}, wanted {wanted:?}: {told:?}"));
        }
        self.check_echoes(case, number, &told.answers);
    }

    async fn http2(&mut self, case: &Case, number: usize) {
        let told = h2::say(self.address, &case.lines, number).await;
        let fits = match &told {
            h2::Told::Reset => case.resets,
            h2::Told::Answer(status, _) => case.answers.contains(status),
        };
        if !fits {
            self.faults.push(format!("{}: {told:?}, wanted {:?}", case.name, case.answers));
        }
        if let h2::Told::Answer(status, body) = told {
            self.check_echoes(case, number, &[(status, body)]);
        }
    }

    /// Each answer of the upstream is the answer to this case.
    fn check_echoes(&mut self, case: &Case, number: usize, answers: &[(u16, String)]) {
        for (status, body) in answers {
            if *status == 200 && !body.starts_with(&path(number)) {
                self.faults.push(format!("{}: answered with another's answer {body:?}", case.name));
            }
        }
    }

    /// What others get after a case.
    async fn ask_after(&mut self, case: &Case) {
        self.asked += 1;
        let target = path(AFTER + self.asked);
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let told = client::say(self.address, request.as_bytes(), Pace::AtOnce, 1, false).await;
        if told.answers != [(200, target)] {
            self.faults.push(format!("{}: the next to ask got {told:?}", case.name));
        }
    }

    /// Ends the proxy and reads what has reached the upstream.
    async fn finish(mut self) -> (Sights, Vec<String>) {
        self.proxy.terminate().await.unwrap();
        let mut sights = Sights::new();
        for bytes in self.upstream.finish().await {
            match read(&bytes) {
                Ok(all) => {
                    for (number, seen) in all {
                        sights.entry(number).or_default().push(seen);
                    }
                }
                Err(fault) => self.faults.push(format!("upstream: {fault} in\n{}", show(&bytes))),
            }
        }
        for number in 1..=self.asked {
            if sights.remove(&(AFTER + number)).is_none_or(|seen| seen.len() != 1) {
                self.faults.push(format!("upstream: not one request of {}", path(AFTER + number)));
            }
        }
        (sights, self.faults)
    }
}

/// A connection's requests, each with the number of its case.
fn read(bytes: &[u8]) -> Result<Vec<(usize, Seen)>, String> {
    let all = strict(bytes)?;
    let plain: Vec<_> = all.iter().map(|seen| (seen.method.clone(), seen.target.clone())).collect();
    for how in Sloppy::all() {
        let sloppy = how.read(bytes);
        if sloppy != plain {
            return Err(format!("{how:?} reads {sloppy:?}"));
        }
    }
    let numbered = |seen: Seen| match seen.target.strip_prefix("/p").and_then(|rest| rest.get(..5)) {
        Some(digits) => {
            digits.parse::<usize>().map(|number| (number, seen)).map_err(|error| error.to_string())
        }
        None => Err(format!("{} was never permitted", seen.target)),
    };
    all.into_iter().map(numbered).collect()
}

/// What is wrong with what the upstream has seen of a case.
fn compare(case: &Case, number: usize, mut seen: Vec<Seen>) -> Option<String> {
    for wanted in &case.seen {
        let target = own(wanted.target.as_bytes(), number);
        let fits = |seen: &Seen| {
            seen.method == wanted.method && seen.target.as_bytes() == target && fits(wanted, seen)
        };
        match seen.iter().position(fits) {
            Some(at) => drop(seen.remove(at)),
            None if wanted.sight == Sight::Whole => return Some(format!("{wanted:?} is not among {seen:?}")),
            None => {}
        }
    }
    (!seen.is_empty()).then(|| format!("the upstream has seen {seen:?}"))
}

fn fits(wanted: &Wanted, seen: &Seen) -> bool {
    if wanted.sight == Sight::Cut {
        return !seen.complete;
    }
    let has = |(name, value): &(String, String)| seen.values(name) == [value];
    seen.complete
        && seen.body == wanted.body
        && wanted.with.iter().all(has)
        && wanted.without.iter().all(|name| seen.values(name).is_empty())
}

fn files() -> Vec<PathBuf> {
    let folder = tests::harness::repository().join("tests/smuggling");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn cases(http2: bool) -> Vec<Case> {
    let of_kind = files().into_iter().filter(|file| file.ends_with("http2.txt") == http2);
    of_kind.flat_map(|file| Case::load(&file)).collect()
}

async fn judge(world: World, cases: &[(usize, &Case)]) {
    let (mut sights, mut faults) = world.finish().await;
    for (number, case) in cases {
        let seen = sights.remove(number).unwrap_or_default();
        if let Some(fault) = compare(case, *number, seen) {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    faults.extend(sights.into_iter().map(|(number, seen)| format!("nobody's {number}: {seen:?}")));
    let mut text = String::new();
    for fault in &faults {
        let _ = writeln!(text, "- {fault}");
    }
    assert!(faults.is_empty(), "{} faults:\n{text}", faults.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_cases() {
    let cases = cases(false);
    assert!(cases.len() > 350, "{} cases", cases.len());
    let (mut world, mut numbered) = (World::new().await, Vec::new());
    for (number, case) in cases.iter().enumerate() {
        for (number, pace) in [(number, Pace::AtOnce), (number + BY_BYTES, Pace::ByBytes)] {
            // A case about size says nothing more in small pieces.
            if pace == Pace::ByBytes && case.bytes(number).len() > 4096 {
                continue;
            }
            world.http1(case, number, pace).await;
            numbered.push((number, case));
        }
        world.ask_after(case).await;
    }
    judge(world, &numbered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_cases() {
    let cases = cases(true);
    assert!(cases.len() > 130, "{} cases", cases.len());
    let mut world = World::new().await;
    for (number, case) in cases.iter().enumerate() {
        world.http2(case, number).await;
        world.ask_after(case).await;
    }
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    judge(world, &numbered).await;
}
