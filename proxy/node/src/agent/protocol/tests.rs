#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{IoSlice, Read as _},
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, connect, sendmsg};

use super::{link::packet_socket, *};

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    seat: Seat,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/agent.sock");
    let (user, group) = me();
    let seat = Seat::open(&path, user, group).unwrap();
    Place { _folder: folder, path, seat }
}

fn hello() -> Hello {
    Hello { version: VERSION, role: Role::Proxy, started: 7, serving: vec![pod(3)] }
}

fn pod(slot: u32) -> PodKey {
    PodKey { slot, netns: u64::MAX - u64::from(slot) }
}

fn file(text: &str) -> OwnedFd {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn text(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn welcome() -> Reply {
    Reply::Welcome(Welcome { version: VERSION, node_addresses: vec!["10.0.0.1".parse().unwrap()] })
}

fn answer(to: u64, say: Reply) -> Message {
    Message { to: Some(to), say }
}

/// A client that was welcomed, and the agent's end of its connection.
async fn pair(place: &Place) -> (Client, Link, Admission) {
    let greet = async {
        let (link, peer, admission) = place.seat.accept().await.unwrap();
        assert_eq!(peer, Peer { user: me().0, pid: std::process::id().cast_signed() });
        let packet = link.receive::<Request>().await.unwrap();
        assert_eq!(packet.message.ask, Ask::Hello(hello()));
        let maps: Vec<OwnedFd> = ["origins", "dns", "counters"].map(file).into();
        let maps: Vec<BorrowedFd<'_>> = maps.iter().map(OwnedFd::as_fd).collect();
        link.send(&answer(packet.message.id, welcome()), &maps).await.unwrap();
        (link, admission)
    };
    let (client, (link, admission)) = tokio::join!(Client::connect_to(&place.path, hello(), me().0), greet);
    (client.unwrap(), link, admission)
}

#[tokio::test]
async fn descriptors_arrive_in_their_places() {
    let place = place();
    let (mut client, link, _admission) = pair(&place).await;
    assert_eq!(client.welcome.node_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    let maps = client.maps.take().unwrap();
    let told = [maps.origins, maps.dns_origins, maps.counters].map(text);
    assert_eq!(told, ["origins", "dns", "counters"]);

    client.sender.ask(9, Ask::Listen { pod: pod(3) }).await.unwrap();
    let asked = link.receive::<Request>().await.unwrap().message;
    assert_eq!(asked, Request { id: 9, ask: Ask::Listen { pod: pod(3) } });
    let files: Vec<OwnedFd> = (0..6).map(|n| file(&n.to_string())).collect();
    let fds: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
    link.send(&answer(9, Reply::Listeners { pod: pod(3), v4: false, v6: true }), &fds).await.unwrap();
    let (to, News::Listeners { pod: whose, v4: None, v6: Some(v6) }) = client.receiver.next().await.unwrap()
    else {
        panic!("no listeners");
    };
    assert_eq!((to, whose), (Some(9), pod(3)));
    let order: Vec<i32> = v6.descriptors().map(|fd| fd.as_raw_fd()).collect();
    assert_eq!(order.len(), 6);
    let told = [v6.inbound, v6.outbound].into_iter().chain(v6.dns).map(text).collect::<String>();
    assert_eq!(told, "012345");
}

#[tokio::test]
async fn lists_come_in_parts_and_are_given_whole() {
    let place = place();
    let (mut client, link, _admission) = pair(&place).await;
    let info = |slot| PodInfo {
        key: pod(slot),
        workload: "a/b".to_owned(),
        uid: None,
        addresses: Vec::new(),
        transparent: true,
        accelerated: false,
        enrolment: 1,
    };
    for (slot, more) in [(0, true), (1, true), (2, false)] {
        let say = Reply::Pods { more, pods: vec![info(slot)] };
        link.send(&Message { to: None, say }, &[]).await.unwrap();
    }
    let (None, News::Pods(pods)) = client.receiver.next().await.unwrap() else { panic!("no pods") };
    assert_eq!(pods, [info(0), info(1), info(2)]);
}

#[tokio::test]
async fn messages_that_contradict_their_descriptors_are_refused() {
    let none: &[&str] = &[];
    let cases: [(Reply, &[&str]); 6] = [
        (Reply::Listeners { pod: pod(1), v4: true, v6: false }, &["1", "2", "3", "4", "5"]),
        (Reply::Listeners { pod: pod(1), v4: true, v6: false }, &["1", "2", "3", "4", "5", "6", "7"]),
        (Reply::Listeners { pod: pod(1), v4: false, v6: false }, none),
        (Reply::Sockets { pod: pod(1), kind: SocketKind::Egress4 }, none),
        (Reply::Superseded {}, &["1"]),
        (welcome(), &["1", "2"]),
    ];
    for (say, files) in cases {
        let place = place();
        let (mut client, link, _admission) = pair(&place).await;
        let files: Vec<OwnedFd> = files.iter().map(|text| file(text)).collect();
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
        link.send(&answer(1, say.clone()), &fds).await.unwrap();
        let error = client.receiver.next().await.unwrap_err();
        assert!(matches!(error, LinkError::Malformed(_)), "{say:?}: {error}");
    }
}

/// A connection that says whatever a test wants it to.
struct Raw(OwnedFd);

impl Raw {
    fn connect(path: &Path) -> Self {
        let socket = packet_socket().unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self(socket)
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    }
}

async fn heard(place: &Place, raw: &Raw, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Request, LinkError> {
    let (link, _, _admission) = place.seat.accept().await.unwrap();
    raw.send(bytes, fds).unwrap();
    link.receive::<Request>().await.map(|packet| packet.message)
}

#[tokio::test]
async fn nonsense_is_an_error_of_its_connection_only() {
    let place = place();
    let (mut client, link, _admission) = pair(&place).await;
    let deep = "[".repeat(60_000);
    let cases: &[&[u8]] = &[
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b"{\"id\":1}",
        b"{\"id\":-1,\"ask\":{\"status\":{}}}",
        b"{\"id\":1,\"ask\":{\"status\":{\"more\":1}}}",
        b"{\"id\":1,\"ask\":{\"release\":{\"pod\":{\"slot\":1,\"netns\":2}}}}",
        b"{\"id\":1,\"ask\":{\"stock\":{\"pod\":{\"slot\":4294967296,\"netns\":2},\"kind\":\"egress4\",\"count\":1}}}",
        b"{\"id\":1,\"ask\":{\"stock\":{\"pod\":{\"slot\":1,\"netns\":2},\"kind\":\"raw\",\"count\":1}}}",
        b"{\"id\":1,\"ask\":{\"listen\":{\"pod\":{\"slot\":1,\"netns\":2,\"path\":\"/proc/1/ns/net\"}}}}",
        b"{\"id\":1,\"ask\":{\"status\":{}}} {\"id\":2,\"ask\":{\"status\":{}}}",
        b"{\"id\":1,\"id\":2,\"ask\":{\"status\":{}}}",
        deep.as_bytes(),
    ];
    for bytes in cases {
        let raw = Raw::connect(&place.path);
        let error = heard(&place, &raw, bytes, &[]).await.unwrap_err();
        let shown = String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)).into_owned();
        assert!(matches!(error, LinkError::Malformed(_)), "{shown}: {error}");
    }
    link.send(&Message { to: None, say: Reply::Superseded {} }, &[]).await.unwrap();
    assert!(matches!(client.receiver.next().await.unwrap(), (None, News::Superseded)));
}

#[tokio::test]
async fn every_flip_and_cut_of_a_good_request_is_read_or_refused() {
    let place = place();
    let good = serde_json::to_vec(&Request { id: 1, ask: Ask::Listen { pod: pod(1) } }).unwrap();
    let raw = Raw::connect(&place.path);
    let (link, _, _admission) = place.seat.accept().await.unwrap();
    let (mut read, mut refused) = (0, 0);
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        for bytes in [&flipped[..], good.get(..at).unwrap()] {
            if bytes.is_empty() {
                continue;
            }
            raw.send(bytes, &[]).unwrap();
            match link.receive::<Request>().await {
                Ok(_) => read += 1,
                Err(LinkError::Malformed(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > good.len(), "{read} read, {refused} refused");
}

#[tokio::test]
async fn what_is_too_long_or_brings_descriptors_is_refused() {
    let place = place();
    let long = vec![b' '; MAX_MESSAGE + 1];
    let raw = Raw::connect(&place.path);
    assert!(matches!(heard(&place, &raw, &long, &[]).await, Err(LinkError::Excess)));

    let status = serde_json::to_vec(&Request { id: 1, ask: Ask::Status {} }).unwrap();
    let file = file("mine");
    let raw = Raw::connect(&place.path);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let many = vec![file.as_fd(); MAX_DESCRIPTORS];
    assert!(matches!(heard(&place, &raw, &status, &many).await, Err(LinkError::Excess)));
    // Other tests of this process open files too, but not two hundred.
    assert!(open() < before + 200, "the descriptors stayed open");
}

#[tokio::test]
async fn an_end_is_told() {
    let place = place();
    let (mut client, link, admission) = pair(&place).await;
    drop((link, admission));
    assert!(matches!(client.receiver.next().await, Err(LinkError::Closed)));
    let raw = Raw::connect(&place.path);
    let (link, _, _admission) = place.seat.accept().await.unwrap();
    drop(raw);
    assert!(matches!(link.receive::<Request>().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let place = place();
    let _raw = Raw::connect(&place.path);
    let (link, _, _admission) = place.seat.accept().await.unwrap();
    let detail = "x".repeat(MAX_MESSAGE / 2);
    let refused = || Reply::Refused { reason: Refusal::Busy, detail: detail.clone() };
    let mut sent = 0;
    let error = loop {
        match link.send(&answer(sent, refused()), &[]).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "the socket takes everything");
    };
    assert!(matches!(error, LinkError::Timeout), "{error}");
}

#[tokio::test]
async fn connections_are_counted_and_given_back() {
    let place = place();
    let most = if me().0 == 0 { MAX_ROOT_CLIENTS } else { MAX_CLIENTS };
    let mut inside = Vec::new();
    for _ in 0..most {
        let raw = Raw::connect(&place.path);
        inside.push((raw, place.seat.accept().await.unwrap()));
    }
    let refused = Raw::connect(&place.path);
    let wait = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(wait, place.seat.accept()).await.is_err(), "one too many came in");
    let end = rustix::net::recv(&refused.0, &mut [0; 1][..], rustix::net::RecvFlags::empty());
    assert_eq!(end.map(|(read, _)| read).unwrap_or(0), 0, "it was not turned away");
    inside.pop();
    let _raw = Raw::connect(&place.path);
    place.seat.accept().await.unwrap();
}

#[tokio::test]
async fn only_the_proxys_user_and_root_come_in_and_only_roots_agent_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let (user, group) = me();
    let error = Client::connect(&path, hello()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    let seat = Seat::open(&path, user + 1, group).unwrap();
    if user != 0 {
        let _raw = Raw::connect(&path);
        let wait = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, seat.accept()).await.is_err(), "a stranger came in");
    }
    let error = Client::connect_to(&path, hello(), user + 1).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotRoot { user: who, .. } if who == user), "{error}");
}

#[tokio::test]
async fn another_version_is_said_so() {
    let place = place();
    let greet = async {
        let (link, _, _admission) = place.seat.accept().await.unwrap();
        let id = link.receive::<Request>().await.unwrap().message.id;
        let other = Welcome { version: VERSION + 1, node_addresses: Vec::new() };
        link.send(&answer(id, Reply::Welcome(other)), &[]).await.unwrap();
    };
    let (client, ()) = tokio::join!(Client::connect_to(&place.path, hello(), me().0), greet);
    assert!(matches!(client, Err(ConnectError::Version(2))));
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_anything_else_is_not() {
    let Place { _folder: folder, path, seat } = place();
    // As if the agent had been killed.
    std::mem::forget(seat);
    let (user, group) = me();
    let seat = Seat::open(&path, user, group).unwrap();
    drop(seat);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(Seat::open(&path, user, group).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    drop(folder);
}

#[test]
fn reasons_have_one_name() {
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.name()));
    }
    for state in [State::NotEnrolled, State::Waiting, State::Serving] {
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
    }
}
