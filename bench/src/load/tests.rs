#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::http1::{Answer, Malformed, Responses};
use super::*;

const REQUEST: &[u8] = b"GET /fhir/Patient/p1 HTTP/1.1\r\nhost: x\r\n\r\n";

fn reactor() -> Reactor {
    Reactor::new(0, Documents::new("{}")).unwrap()
}

fn lane(target: SocketAddr, pacing: Pacing) -> Lane {
    let requests = Requests::Same(REQUEST.into());
    Lane {
        target,
        protocol: Protocol::Http1,
        tls: None,
        connections: 4,
        streams: 1,
        pacing,
        requests,
        expect: 200,
    }
}

/// A server that answers in order, and after every answer but the last waits for nothing; before the
/// `at`th it sleeps for `stall`. One connection.
fn stalling_server(at: usize, stall: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        for count in 0.. {
            if matches!(stream.read(&mut buffer), Ok(0) | Err(_)) {
                return;
            }
            if count == at {
                thread::sleep(stall);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
    });
    address
}

#[test]
fn a_schedule_is_fixed_ordered_and_as_dense_as_asked_for() {
    let schedule = Schedule::poisson(1000.0, Duration::from_secs(20), 7);
    assert_eq!(schedule, Schedule::poisson(1000.0, Duration::from_secs(20), 7));
    assert_ne!(schedule, Schedule::poisson(1000.0, Duration::from_secs(20), 8));
    let moments: Vec<Duration> = (0..schedule.len()).map(|index| schedule.due(index).unwrap()).collect();
    assert!(moments.is_sorted() && moments.iter().all(|at| *at < Duration::from_secs(20)));
    // 20,000 arrivals; seven standard deviations of a Poisson count.
    assert!((19_000..21_000).contains(&schedule.len()), "{}", schedule.len());
    // The gaps of a Poisson process are longer than their mean in a share of 1/e.
    let long = moments.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_millis(1)).count();
    assert!((6_800..7_900).contains(&long), "{long}");
    assert!(Schedule::poisson(0.0, Duration::from_secs(1), 1).is_empty());
    assert!(Schedule::poisson(f64::NAN, Duration::from_secs(1), 1).is_empty());
}

#[test]
fn a_stalled_server_is_seen_by_every_request_that_was_due_meanwhile() {
    // One connection, an arrival every 10 ms for a second, one stall of 400 ms at the start: the
    // request that meets it waits 400 ms, the next 390, and so on. A generator that waits for the answer
    // before it counts would see one slow request of a hundred.
    let target = stalling_server(5, Duration::from_millis(400));
    let schedule = Arc::new(Schedule::even(Duration::from_millis(10), 100));
    let mut lane = lane(target, Pacing::Open(schedule));
    lane.connections = 1;
    let reports = reactor().run(vec![lane], Duration::from_secs(1), Vec::new()).unwrap();
    let report = &reports[0];
    assert_eq!((report.answered, report.complaint()), (100, None));
    let over =
        |limit: Duration| report.latency.len() - report.latency.count_between(0, limit.as_nanos() as u64);
    // Of the 40 that were due during the stall 20 had more than half of it before them.
    assert!(over(Duration::from_millis(200)) >= 20, "{}", over(Duration::from_millis(200)));
    assert!(report.percentile(99.0) >= 380.0, "{}", report.percentile(99.0));
    assert!(report.longest() >= 399.0, "{}", report.longest());
}

#[test]
fn a_closed_loop_counts_every_answer_and_its_own_upstream_saw_them() {
    let mut reactor = reactor();
    let target = reactor.upstream().unwrap();
    let reports =
        reactor.run(vec![lane(target, Pacing::Closed)], Duration::from_millis(100), Vec::new()).unwrap();
    assert_eq!(reports[0].complaint(), None);
    assert!(reports[0].answered >= 4);
    assert_eq!(reactor.served(), reports[0].answered);
}

#[test]
fn idle_connections_ask_once_and_stay_open_beside_a_load() {
    let mut reactor = reactor();
    let target = reactor.upstream().unwrap();
    let mut idle = lane(target, Pacing::Once);
    idle.connections = 50;
    let lanes = vec![lane(target, Pacing::Closed), idle];
    let reports = reactor.run(lanes, Duration::from_millis(100), Vec::new()).unwrap();
    assert_eq!((reports[1].answered, reports[1].complaint()), (50, None));
}

#[test]
fn unexpected_statuses_and_lost_connections_are_complained_of() {
    let mut reactor = reactor();
    let target = reactor.upstream().unwrap();
    let mut wrong = lane(target, Pacing::Once);
    wrong.expect = 403;
    let reports = reactor.run(vec![wrong], Duration::ZERO, Vec::new()).unwrap();
    assert_eq!(reports[0].complaint().unwrap(), "4 answers with 200");

    // Below the ports that anybody gets who asks for a free one.
    let silent = SocketAddr::from(([127, 0, 0, 1], 1));
    let reports = reactor.run(vec![lane(silent, Pacing::Once)], Duration::ZERO, Vec::new()).unwrap();
    assert!(reports[0].complaint().unwrap().contains("no connection"));
}

#[test]
fn a_server_that_cuts_the_connection_fails_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
        }
    });
    let mut lane = lane(target, Pacing::Once);
    lane.connections = 1;
    let reports = reactor().run(vec![lane], Duration::ZERO, Vec::new()).unwrap();
    assert_eq!(reports[0].complaint().unwrap(), "no request was answered, 1 failed: connection closed");
}

#[test]
fn fresh_tokens_are_each_used_once_and_then_the_lane_ends() {
    let mut reactor = reactor();
    let target = reactor.upstream().unwrap();
    let tokens: Arc<[Box<[u8]>]> = (0..500).map(|index| format!("t{index}").into_bytes().into()).collect();
    let before = b"GET / HTTP/1.1\r\nhost: x\r\n".as_slice().into();
    let fresh = Fresh { before, tokens, next: 100, end: 400, again: false };
    let mut lane = lane(target, Pacing::Closed);
    lane.requests = Requests::Fresh(fresh);
    let reports = reactor.run(vec![lane], Duration::from_secs(60), Vec::new()).unwrap();
    assert_eq!((reports[0].answered, reports[0].complaint()), (300, None));
}

#[test]
fn bundles_pass_both_ways() {
    let mut reactor = reactor();
    let target = reactor.upstream().unwrap();
    let mut down = lane(target, Pacing::Once);
    down.requests = Requests::Same(b"GET /fhir/Bundle/b1 HTTP/1.1\r\nhost: x\r\n\r\n".as_slice().into());
    let mut up = lane(target, Pacing::Once);
    let body = upstream::bundle(BUNDLE_BYTES);
    let head = format!("POST /fhir HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    up.requests = Requests::Same([head.as_bytes(), body.as_bytes()].concat().into());
    up.expect = 201;
    let reports = reactor.run(vec![down, up], Duration::ZERO, Vec::new()).unwrap();
    assert_eq!((reports[0].complaint(), reports[1].complaint()), (None, None));
    assert_eq!(reports[0].answered + reports[1].answered, 8);
}

#[test]
fn a_hook_acts_at_its_moment() {
    let mut reactor = reactor();
    let acted = std::cell::Cell::new(0);
    let hooks: Vec<Hook<'_>> = vec![(Duration::from_millis(20), Box::new(|_| acted.set(acted.get() + 1)))];
    reactor.run(Vec::new(), Duration::from_millis(40), hooks).unwrap();
    assert_eq!(acted.get(), 1);
}

#[test]
fn responses_are_read_however_they_are_cut() {
    let cases: [(&[u8], u16, bool); 5] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, false),
        (b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 403, true),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, false),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx", 201, false),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\na: b\r\n\r\n",
            200,
            false,
        ),
    ];
    for (message, status, close) in cases {
        for cut in 0..message.len() {
            let mut responses = Responses::default();
            let (first, second) = message.split_at(cut);
            assert_eq!(responses.feed(first), Ok(None), "cut at {cut}");
            assert_eq!(responses.feed(second), Ok(Some(Answer { status, close })), "cut at {cut}");
        }
    }
}

#[test]
fn responses_without_end_or_with_too_much_are_malformed() {
    for (message, why) in [
        (b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), Malformed::Length),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy", Malformed::Surplus),
        (b"SMTP ready\r\n\r\n", Malformed::StartLine),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Malformed::Chunk),
    ] {
        assert_eq!(Responses::default().feed(message), Err(why));
    }
}
