//! Who shares what.

use super::*;

#[test]
fn lanes_are_shared_by_nobody_else() {
    let id = |account: &str| policy::SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "ns".to_owned(),
        service_account: account.to_owned(),
    };
    let pod = |slot: u32| Some(PodId { slot, generation: 1 });
    let at = |text: &str| text.parse().unwrap();
    let lanes = Lanes::new();
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let base = From { pod: pod(1), generation: 1, way: mesh::TunnelWay::Sidecar, to: at("10.0.0.1:15008") };
    let between = Between { own: &a, expected: &b, sni: None };
    let count = AtomicUsize::new(0);
    let number = |from, between| *lanes.lane(from, between, || count.fetch_add(1, Ordering::SeqCst));
    for (wanted, from, between) in [
        (0, base, between),
        (1, From { pod: pod(2), ..base }, between),
        (2, From { pod: None, ..base }, between),
        (3, From { generation: 2, ..base }, between),
        (4, From { to: at("10.0.0.2:15008"), ..base }, between),
        (5, From { to: at("10.0.0.1:15009"), ..base }, between),
        (6, base, Between { own: &c, ..between }),
        (7, base, Between { expected: &c, ..between }),
        (8, From { way: mesh::TunnelWay::Hbone(base.to), ..base }, between),
        (9, base, Between { sni: Some("x"), ..between }),
    ] {
        assert_eq!(number(from, between), wanted);
        assert_eq!(number(from, between), wanted, "found again");
    }
    lanes.forget(pod(1).unwrap());
    assert_eq!(number(base, between), 10);
    assert_eq!(number(From { pod: None, ..base }, between), 2, "others' stay");
    lanes.sweep(|_| true);
    assert_eq!(number(From { pod: None, ..base }, between), 11);
}
