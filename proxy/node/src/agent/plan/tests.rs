#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const NAME: &str = "data/fhir";

fn member(name: &str, opted_in: bool) -> Member {
    Member { workload: name.parse().unwrap(), opted_in, host_network: false, accelerated: false }
}

fn roster(opted_in: bool) -> Roster {
    Roster::made(
        vec![member(NAME, opted_in), member("data/other", true)],
        vec![("uid", member(NAME, opted_in))],
    )
}

fn at(inode: u64) -> Whereabouts {
    Whereabouts::At { path: format!("/run/netns/{inode}").into(), inode }
}

fn listed(netns: Whereabouts, cgroup: Option<u64>) -> Candidate {
    let identity = Identity::Workload(NAME.parse().unwrap(), None);
    Candidate { identity, cgroup: "/cg/pods/a".into(), cgroup_id: cgroup, netns }
}

fn discovered(netns: Whereabouts) -> Candidate {
    Candidate { identity: Identity::Uid("uid".to_owned()), ..listed(netns, Some(7)) }
}

fn held(netns: u64, cgroup: u64) -> Held {
    Held { slot: 3, place: Place { netns, cgroup }, workload: NAME.to_owned(), accelerated: Some(false) }
}

struct Case {
    roster: Option<Roster>,
    pods: Vec<Candidate>,
    held: Vec<Held>,
    whole: bool,
}

impl Case {
    fn new(roster: Option<Roster>, pods: Vec<Candidate>, held: Vec<Held>) -> Self {
        Self { roster, pods, held, whole: true }
    }

    fn plan(&self) -> Plan {
        plan(&Known {
            roster: self.roster.as_ref(),
            pods: &self.pods,
            whole: self.whole,
            held: &self.held,
            own_cgroup: Some(Path::new("/cg/system/agent")),
        })
    }
}

/// What becomes of one pod: the slots left, how many are taken, the reasons.
#[allow(clippy::type_complexity)]
fn outcome(case: &Case) -> (Vec<u32>, usize, Vec<(Option<u32>, Reason)>) {
    let plan = case.plan();
    let told = plan.told.iter().map(|verdict| (verdict.slot, verdict.reason)).collect();
    (plan.leave, plan.take.len(), told)
}

#[test]
fn a_pod_that_is_not_held_is_taken_only_if_all_is_known_and_says_so() {
    let host = Roster::made(Vec::new(), vec![("uid", Member { host_network: true, ..member(NAME, true) })]);
    let cases = [
        (Some(roster(true)), listed(at(5), Some(7)), true, Reason::OptedIn),
        (Some(roster(true)), discovered(at(5)), true, Reason::OptedIn),
        (Some(roster(false)), listed(at(5), Some(7)), false, Reason::NotOptedIn),
        (Some(Roster::default()), listed(at(5), Some(7)), false, Reason::UnknownWorkload),
        (Some(Roster::default()), discovered(at(5)), false, Reason::UnknownWorkload),
        (None, listed(at(5), Some(7)), false, Reason::NoManifests),
        (Some(roster(true)), listed(Whereabouts::Node, Some(7)), false, Reason::HostNetwork),
        (Some(host), discovered(at(5)), false, Reason::HostNetwork),
        (Some(roster(true)), discovered(Whereabouts::Node), false, Reason::NoNetns),
        (Some(roster(true)), discovered(Whereabouts::Unsure), false, Reason::NoNetns),
        (Some(roster(true)), listed(Whereabouts::Absent { idle: false }, Some(7)), false, Reason::NoNetns),
        (Some(roster(true)), listed(at(5), None), false, Reason::NoCgroup),
    ];
    for (roster, pod, taken, reason) in cases {
        let shown = format!("{roster:?} {pod:?}");
        let case = Case::new(roster, vec![pod], Vec::new());
        assert_eq!(outcome(&case), (Vec::new(), usize::from(taken), vec![(None, reason)]), "{shown}");
    }
}

#[test]
fn a_held_pod_is_left_only_when_it_has_opted_out_or_is_gone() {
    let keep = Some(3);
    let idle = |idle| Whereabouts::Absent { idle };
    let cases = [
        (Some(roster(true)), listed(at(5), Some(7)), keep, Reason::OptedIn),
        (Some(roster(false)), listed(at(5), Some(7)), None, Reason::NotOptedIn),
        (Some(roster(false)), discovered(at(5)), None, Reason::NotOptedIn),
        (Some(Roster::default()), discovered(at(5)), keep, Reason::UnknownWorkload),
        (Some(Roster::default()), listed(at(5), Some(7)), keep, Reason::UnknownWorkload),
        (None, listed(at(5), Some(7)), keep, Reason::Adopted),
        (Some(roster(true)), discovered(Whereabouts::Unsure), keep, Reason::NoNetns),
        (Some(roster(true)), discovered(Whereabouts::Node), keep, Reason::NoNetns),
        (Some(roster(true)), discovered(idle(true)), keep, Reason::NoNetns),
        (Some(roster(true)), listed(idle(false), Some(7)), keep, Reason::NoNetns),
        (Some(roster(true)), listed(idle(true), Some(7)), None, Reason::NoNetns),
        (Some(roster(true)), listed(at(5), None), keep, Reason::NoCgroup),
    ];
    for (roster, pod, slot, reason) in cases {
        let shown = format!("{roster:?} {pod:?}");
        let case = Case::new(roster, vec![pod], vec![held(5, 7)]);
        let leave = if slot.is_none() { vec![3] } else { Vec::new() };
        assert_eq!(outcome(&case), (leave, 0, vec![(slot, reason)]), "{shown}");
    }
}

#[test]
fn a_pod_that_nobody_shows_is_left_unless_something_could_not_be_looked_at() {
    let gone = Case::new(Some(roster(true)), Vec::new(), vec![held(5, 7)]);
    assert_eq!(outcome(&gone), (vec![3], 0, Vec::new()));
    let blind = Case { whole: false, ..Case::new(Some(roster(true)), Vec::new(), vec![held(5, 7)]) };
    assert_eq!(outcome(&blind), (Vec::new(), 0, vec![(Some(3), Reason::OptedIn)]));
    let broken = Case::new(None, Vec::new(), vec![held(5, 7)]);
    assert_eq!(outcome(&broken), (Vec::new(), 0, vec![(Some(3), Reason::Adopted)]));
}

#[test]
fn a_listed_pod_with_neither_namespace_nor_cgroup_is_gone() {
    let pod = listed(Whereabouts::Absent { idle: true }, None);
    let case = Case::new(Some(roster(true)), vec![pod], vec![held(5, 7)]);
    assert_eq!(outcome(&case), (vec![3], 0, vec![(None, Reason::NoCgroup)]));
}

#[test]
fn a_pod_that_came_back_is_another() {
    for (netns, cgroup) in [(6, 7), (5, 8), (6, 8)] {
        let case = Case::new(Some(roster(true)), vec![listed(at(netns), Some(cgroup))], vec![held(5, 7)]);
        assert_eq!(outcome(&case), (vec![3], 1, vec![(None, Reason::OptedIn)]), "{netns} {cgroup}");
    }
}

#[test]
fn what_was_found_pinned_is_taken_again_in_its_slot_and_first() {
    let adopted = Held { accelerated: None, ..held(5, 7) };
    let other = Candidate {
        identity: Identity::Workload("data/other".parse().unwrap(), Some(true)),
        cgroup: "/cg/pods/b".into(),
        ..listed(at(9), Some(8))
    };
    for roster in [Some(roster(true)), Some(Roster::default()), None] {
        let opted_in =
            roster.as_ref().is_some_and(|roster| roster.workload(&NAME.parse().unwrap()).is_some());
        let case = Case::new(roster, vec![other.clone(), listed(at(5), Some(7))], vec![adopted.clone()]);
        let plan = case.plan();
        let take = plan.take.first().unwrap();
        assert_eq!((take.slot, take.workload.as_str()), (Some(3), NAME));
        assert_eq!(plan.take.len(), if opted_in { 2 } else { 1 });
        assert!(plan.leave.is_empty());
    }
}

#[test]
fn acceleration_follows_the_settings_then_the_manifests() {
    let accelerated = Roster::made(vec![Member { accelerated: true, ..member(NAME, true) }], Vec::new());
    let wanted = |acceleration| Candidate {
        identity: Identity::Workload(NAME.parse().unwrap(), acceleration),
        ..listed(at(5), Some(7))
    };
    let case = Case::new(Some(accelerated), vec![wanted(None)], vec![held(5, 7)]);
    let plan = case.plan();
    assert_eq!(
        plan.take.iter().map(|take| (take.slot, take.accelerated)).collect::<Vec<_>>(),
        [(Some(3), true)]
    );
    let case = Case { pods: vec![wanted(Some(false))], ..case };
    assert_eq!(case.plan().take, []);
}

#[test]
fn pods_that_share_a_namespace_or_cgroup_are_not_both_enrolled() {
    let pod = |name: &str, inode, id, cgroup: &str| Candidate {
        identity: Identity::Workload(name.parse().unwrap(), None),
        cgroup: cgroup.into(),
        ..listed(at(inode), Some(id))
    };
    let first = pod(NAME, 5, 7, "/cg/pods/a");
    let others = [
        pod("data/other", 5, 8, "/cg/pods/b"),
        pod("data/other", 6, 7, "/cg/pods/a"),
        pod("data/other", 6, 8, "/cg/pods/a/b"),
        pod("data/other", 6, 8, "/cg/pods"),
        pod("data/other", 6, 8, "/cg/system"),
        pod("data/other", 6, 8, "/cg/system/agent"),
        pod("data/other", 6, 8, "/"),
    ];
    for other in others {
        // The one that is held keeps its place, even where it comes second.
        let shown = format!("{other:?}");
        let case = Case::new(Some(roster(true)), vec![other, first.clone()], vec![held(5, 7)]);
        let (leave, takes, told) = outcome(&case);
        let reasons: Vec<Reason> = told.iter().map(|(_, reason)| *reason).collect();
        assert_eq!((leave, takes), (Vec::new(), 0), "{shown}");
        assert_eq!(reasons, [Reason::Shared, Reason::OptedIn], "{shown}");
    }
    let below_the_agent = pod("data/other", 6, 8, "/cg/system/agent/pod");
    let case = Case::new(Some(roster(true)), vec![below_the_agent], Vec::new());
    assert_eq!(outcome(&case), (Vec::new(), 1, vec![(None, Reason::OptedIn)]));
}
