//! The pure decision, at 1 and at 10,000 further policies: nanoseconds a decision.

use std::{hint::black_box, net::IpAddr};

use bench::{alice, workload_policy};
use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use policy::{Destination, Question, RequestFacts, Source, Verdict};

fn decisions(criterion: &mut Criterion) {
    let alice = alice();
    let headers = HeaderMap::new();
    let address = IpAddr::from([10, 0, 0, 7]);
    let question = |method| Question {
        source: Source { ip: address, remote_ip: address, identity: None },
        destination: Destination { ip: address, port: 8080, sni: None },
        request: Some(RequestFacts {
            method,
            host: "fhir-service:8080",
            path: "/fhir/Patient/1",
            headers: &headers,
            identity: Some(&alice),
        }),
    };
    for others in [0, 1, 10_000] {
        let policy = match workload_policy(others) {
            Ok(policy) => policy,
            Err(problems) => panic!("{problems:?}"),
        };
        for (name, method, verdict) in [("allow", "GET", Verdict::Allow), ("deny", "DELETE", Verdict::Deny)] {
            let question = question(method);
            assert_eq!(policy.decide(&question).verdict, verdict);
            criterion.bench_function(&format!("{name} among {} policies", others + 2), |bencher| {
                bencher.iter(|| policy.decide(black_box(&question)));
            });
        }
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
