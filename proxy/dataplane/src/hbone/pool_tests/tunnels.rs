//! Tunnels, and the connections that they share.

use super::*;

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_alone() {
    const LENGTH: u64 = 64 * 1024 * 1024;
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (stream, _) = tunnel(&lane, &server).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 64 * 1024];
        for _ in 0..LENGTH / 65_536 {
            write.write_all(&chunk).await.unwrap();
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut count = 0;
    let mut buffer = vec![0; 64 * 1024];
    let reading = async {
        loop {
            match read.read(&mut buffer).await.unwrap() {
                0 => return count,
                length => count += length as u64,
            }
        }
    };
    assert_eq!(timeout(LONG, reading).await.unwrap(), LENGTH, "and what comes after our end comes too");
    sending.await.unwrap();
}

#[tokio::test]
async fn tunnels_share_a_connection_as_far_as_the_peer_allows() {
    let mut server = Server::new(Does::Hold);
    server.streams = 2;
    let (lane, server) = (lane(), Arc::new(server));
    let mut held = Vec::new();
    for wanted in [1, 1, 2, 2, 3] {
        held.push(tunnel(&lane, &server).await.unwrap());
        assert_eq!(server.opened(), wanted);
    }
    // A place that is free again is used again.
    held.remove(0);
    held.push(tunnel(&lane, &server).await.unwrap());
    held.push(tunnel(&lane, &server).await.unwrap());
    assert_eq!(server.opened(), 3);
}

#[tokio::test]
async fn a_burst_opens_no_more_connections_than_it_fills() {
    let (lane, server) = (Arc::new(lane()), Arc::new(Server::new(Does::Hold)));
    let burst = (0..2 * STREAMS).map(|_| {
        let (lane, server) = (Arc::clone(&lane), Arc::clone(&server));
        tokio::spawn(async move { tunnel(&lane, &server).await.unwrap() })
    });
    let mut held = Vec::new();
    for one in burst.collect::<Vec<_>>() {
        held.push(one.await.unwrap());
    }
    assert_eq!((held.len(), server.opened(), lane.connections()), (2 * STREAMS, 2, 2));
}

#[tokio::test]
async fn a_peer_that_takes_no_streams_is_not_waited_for() {
    let mut server = Server::new(Does::Hold);
    server.streams = 0;
    let server = Arc::new(server);
    assert_eq!(fault(tunnel(&lane(), &server).await), TunnelFault::Protocol.into());
}

#[tokio::test]
async fn goaway_leads_to_another_connection_and_leaves_what_is_under_way() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (mut old, _) = tunnel(&lane, &server).await.unwrap();
    server.away.notify_one();
    let fresh = async {
        // It may take a moment to come.
        loop {
            let tunnel = tunnel(&lane, &server).await.unwrap();
            if server.opened() == 2 {
                return tunnel;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let (mut fresh, _) = timeout(LONG, fresh).await.unwrap();
    for stream in [&mut old, &mut fresh] {
        stream.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"ping");
    }
}

#[tokio::test]
async fn a_connection_that_is_to_go_away_closes_with_its_last_tunnel() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    stream.write_all(b"once").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    server.away.notify_one();
    sleep(Duration::from_millis(50)).await;
    stream.write_all(b"more").await.unwrap();
    timeout(LONG, stream.read_exact(&mut [0; 4])).await.unwrap().unwrap();
    assert_eq!(server.closed.load(Ordering::SeqCst), 0);
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    drop(stream);
    let closed = async {
        while server.closed.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, closed).await.expect("the connection stays");
}

#[tokio::test]
async fn answers_say_why_there_is_no_tunnel() {
    for (status, wanted) in [
        (401, TunnelFault::Denied),
        (400, TunnelFault::Refused),
        (503, TunnelFault::Unreached),
        (404, TunnelFault::Answer(404)),
        (204, TunnelFault::Answer(204)),
        (302, TunnelFault::Answer(302)),
    ] {
        let (lane, server) = (lane(), Arc::new(Server::new(Does::Answer(status))));
        assert_eq!(fault(tunnel(&lane, &server).await), wanted.into());
        assert_eq!(fault(tunnel(&lane, &server).await), wanted.into());
        assert_eq!(server.opened(), 1, "the connection is as good as before");
    }
}

#[tokio::test]
async fn a_connection_that_ended_unnoticed_is_replaced_and_a_new_one_is_not() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Die)));
    assert_eq!(fault(tunnel(&lane, &server).await), TunnelFault::Closed.into());
    assert_eq!(server.opened(), 1, "whoever ends it at once is not asked again");
    let refuses = Arc::new(Server::new(Does::RefuseStream));
    assert_eq!(fault(tunnel(&lane, &refuses).await), TunnelFault::Closed.into());
}

#[tokio::test]
async fn a_request_that_nobody_has_seen_is_sent_once_more() {
    let mut server = Server::new(Does::Echo);
    server.first_takes = Some(1);
    let (lane, server) = (lane(), Arc::new(server));
    drop(tunnel(&lane, &server).await.unwrap());
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    assert_eq!(server.opened(), 2, "the first ended instead of an answer");
    stream.write_all(b"once").await.unwrap();
    let mut read = [0; 4];
    timeout(LONG, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(&read, b"once");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_not_waited_for_long() {
    let short = Patience { answer: Duration::from_millis(50), ..patience() };
    let mut dumb = Server::new(Does::Hold);
    dumb.answers_pings = false;
    let dumb = Arc::new(dumb);
    let lane = Lane::new(10, short);
    assert_eq!(fault(tunnel(&lane, &dumb).await), TunnelFault::Silent.into());
    let silent = Arc::new(Server::new(Does::Silence));
    let slow = Lane::new(10, Patience { answer: Duration::from_secs(3), ..patience() });
    assert_eq!(fault(tunnel(&slow, &silent).await), TunnelFault::Silent.into());
    // Its place is free again.
    assert_eq!(slow.connections(), 1);
    assert!(!slow.sweep(Instant::now()) && slow.sweep(Instant::now() + 2 * LONG));
}

#[tokio::test]
async fn an_opening_that_fails_fails_for_all_who_waited() {
    let short = Patience { answer: Duration::from_millis(200), ..patience() };
    let mut dumb = Server::new(Does::Hold);
    dumb.answers_pings = false;
    let (lane, dumb) = (Arc::new(Lane::new(1000, short)), Arc::new(dumb));
    let waiting = (0..50).map(|_| {
        let (lane, dumb) = (Arc::clone(&lane), Arc::clone(&dumb));
        tokio::spawn(async move { fault(tunnel(&lane, &dumb).await) })
    });
    for one in waiting.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), TunnelFault::Silent.into());
    }
    assert!(dumb.opened() < 5, "{}", dumb.opened());
    let full = Lane::new(0, short);
    assert_eq!(fault(tunnel(&full, &dumb).await), UpstreamFault::Overflow);
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_does_not_hold_up_others() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    // What comes back to these is not read, until their windows are full.
    let mut stalled = Vec::new();
    for _ in 0..STREAMS - 1 {
        let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
        let chunk = vec![0; 1024 * 1024];
        let _ = timeout(Duration::from_millis(20), stream.write_all(&chunk)).await;
        stalled.push(stream);
    }
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    assert_eq!(server.opened(), 1);
    for _ in 0..64 {
        let mut chunk = vec![1; 32 * 1024];
        let round = async {
            stream.write_all(&chunk).await.unwrap();
            stream.read_exact(&mut chunk).await.unwrap();
        };
        timeout(LONG, round).await.expect("it stalls with the others");
    }
}

#[tokio::test]
async fn tunnels_that_are_given_up_unread_give_back_their_room() {
    let (lane, server) = (lane(), Arc::new(Server::new(Does::Echo)));
    // More than the connection's window in all.
    for _ in 0..200 {
        let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
        timeout(LONG, stream.write_all(&vec![0; 200 * 1024])).await.unwrap().unwrap();
        timeout(LONG, stream.read_exact(&mut [0; 1])).await.unwrap().unwrap();
    }
    let (mut stream, _) = tunnel(&lane, &server).await.unwrap();
    stream.write_all(b"still").await.unwrap();
    let mut read = [0; 5];
    timeout(LONG, stream.read_exact(&mut read)).await.expect("no room is left").unwrap();
    assert_eq!((&read, server.opened()), (b"still", 1));
}
