//! What enrolment does to connections.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use loader::{
    Counter, Family, Kernel, Netns, Slot, SocketKind,
    proxy::{DnsOrigins, Origins},
};
use socket2::Socket;

use super::bed::{Pod, enrol, finish, on_a_node, serve, tell};

/// Accepts one redirected connection and answers with where it wanted to go.
fn answer(listener: &TcpListener, origins: &Origins, netns: u64) {
    let (mut socket, peer) = listener.accept().unwrap();
    let origin = origins.take(netns, peer).unwrap();
    socket.write_all(origin.address.socket_addr().to_string().as_bytes()).unwrap();
}

#[test]
fn connections_go_to_the_proxy_and_nowhere_before() {
    on_a_node("capture::connections_go_to_the_proxy_and_nowhere_before", |bed| {
        let pod = bed.pod(1);
        let netns = Netns::open(pod.path()).unwrap();
        let outside = TcpListener::bind((pod.node4, 0)).unwrap();
        outside.set_nonblocking(true).unwrap();
        let port = outside.local_addr().unwrap().port();
        let mut kernel = bed.kernel();
        let begun = Instant::now();
        let enrolled = enrol(&mut kernel, &pod);
        println!("enrolment took {:?}", begun.elapsed());
        assert!(enrolled.fresh && enrolled.remarks.is_empty(), "{enrolled:?}");

        assert_eq!(pod.connects(pod.node4, port), "EPERM");
        assert_eq!(pod.connects(pod.node6, port), "EPERM");
        let refused = TcpStream::connect((pod.ip4, 80)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

        let proxy = serve(&mut kernel, enrolled.slot);
        let origins = Origins::from_fd(kernel.proxy_maps().unwrap().origins).unwrap();
        for (to, listener) in [(pod.node4, &proxy.out4), (pod.node6, &proxy.out6)] {
            thread::scope(|scope| {
                scope.spawn(|| answer(listener, &origins, netns.cookie()));
                assert_eq!(pod.connects(to, port), format!("{} {to}", SocketAddr::new(to, port)));
            });
        }
        for (to, listener) in [(pod.ip4, &proxy.in4), (pod.ip6, &proxy.in6)] {
            let _client = TcpStream::connect((to, 8080)).unwrap();
            let (socket, _) = listener.accept().unwrap();
            assert_eq!(socket.local_addr().unwrap(), SocketAddr::new(to, 8080));
        }
        assert!(outside.accept().is_err(), "something got past");
        let counters = kernel.counters().unwrap();
        let value = |wanted| counters.iter().find(|(counter, _)| *counter == wanted).unwrap().1;
        assert!(value(Counter::RedirectedV4) >= 1 && value(Counter::RedirectedV6) >= 1);
        assert!(value(Counter::RefusedNotReady) >= 2);

        kernel.unready(enrolled.slot).unwrap();
        assert_eq!(pod.connects(pod.node4, port), "EPERM");
    });
}

/// Into the pod with the client's address, over a socket as the proxy has it.
fn inwards(kernel: &Kernel, slot: Slot, from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let kind = SocketKind::Ingress(family);
    let socket: OwnedFd = kernel.sockets(slot, kind, 1).unwrap().remove(0);
    let socket = Socket::from(socket);
    socket.set_nonblocking(false)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(20))?;
    Ok(socket.into())
}

fn server(pod: &Pod) -> (std::process::Child, u16) {
    let program = "import socket\n\
                   s=socket.create_server(('::',0),family=socket.AF_INET6,dualstack_ipv6=True)\n\
                   print(s.getsockname()[1],flush=True)\n\
                   while True:\n\
                   \x20 c,a=s.accept()\n\
                   \x20 c.sendall(a[0].encode()); c.close()";
    let mut child = pod.spawn(program);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

#[test]
fn servers_see_the_clients_address_and_closed_ports_refuse_at_once() {
    on_a_node("capture::servers_see_the_clients_address_and_closed_ports_refuse_at_once", |bed| {
        let pod = bed.pod(2);
        let (mut child, port) = server(&pod);
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let _proxy = serve(&mut kernel, slot);
        let clients = [("10.1.2.3", pod.ip4, "::ffff:10.1.2.3"), ("fd01::9", pod.ip6, "fd01::9")];
        for (client, server, seen) in clients {
            let from = SocketAddr::new(client.parse().unwrap(), 0);
            let mut stream = inwards(&kernel, slot, from, (server, port).into()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, seen);
            // Not after a timeout: the reset carries the mark and finds its way back.
            let refused = inwards(&kernel, slot, from, (server, 1).into()).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn old_connections_end_and_those_within_the_pod_stay() {
    on_a_node("capture::old_connections_end_and_those_within_the_pod_stay", |bed| {
        let pod = bed.pod(3);
        let outside = TcpListener::bind((pod.node4, 0)).unwrap();
        let port = outside.local_addr().unwrap().port();
        let program = format!(
            "import socket,errno\n\
             l=socket.create_server(('127.0.0.1',0)); within=socket.create_connection(l.getsockname()); w,_=l.accept()\n\
             s=socket.create_connection(('{}',{port}))\n\
             d=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); d.connect(('{}',53))\n\
             print('open',flush=True); input()\n\
             def end(f):\n\
             \x20 try: f(); return 'alive'\n\
             \x20 except OSError as e: return errno.errorcode[e.errno]\n\
             w.sendall(b'x'); s.settimeout(20); d.settimeout(20)\n\
             print(end(lambda: s.recv(1)), end(lambda: d.recv(1)), within.recv(1).decode())",
            pod.node4, pod.node4
        );
        let mut child = pod.spawn(&program);
        let (held, _) = outside.accept().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");

        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let ours = kernel.sockets(slot, SocketKind::Egress(Family::V4), 1).unwrap().remove(0);
        let ours = Socket::from(ours);
        ours.set_nonblocking(false).unwrap();
        ours.connect(&SocketAddr::new(pod.node4, port).into()).unwrap();
        let (mut kept, _) = outside.accept().unwrap();

        assert_eq!(kernel.end_old_connections(slot).unwrap(), 2);
        assert_eq!(kernel.end_old_connections(slot).unwrap(), 0);
        tell(&mut child, "go");
        assert_eq!(finish(child), "ECONNABORTED ECONNABORTED x");
        // The proxy's own goes on.
        kept.write_all(b"y").unwrap();
        let mut byte = [0];
        TcpStream::from(ours).read_exact(&mut byte).unwrap();
        drop(held);
    });
}

#[test]
fn queries_come_with_the_server_they_were_meant_for() {
    on_a_node("capture::queries_come_with_the_server_they_were_meant_for", |bed| {
        let pod = bed.pod(4);
        let netns = Netns::open(pod.path()).unwrap().cookie();
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let proxy = serve(&mut kernel, slot);
        let servers = DnsOrigins::from_fd(kernel.proxy_maps().unwrap().dns_origins).unwrap();
        for (server, socket) in [(pod.node4, &proxy.dns4), (pod.node6, &proxy.dns6)] {
            let program = format!(
                "import socket\n\
                 s=socket.socket(socket.AF_INET6 if ':' in '{server}' else socket.AF_INET,socket.SOCK_DGRAM)\n\
                 s.settimeout(20); s.sendto(b'query',('{server}',53)); d,a=s.recvfrom(99); print(d.decode(),a[0],a[1])"
            );
            let child = pod.spawn(&program);
            let mut buffer = [0; 99];
            let (_, peer) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(servers.server(netns, peer, 0), Some(SocketAddr::new(server, 53)));
            assert_eq!(servers.server(netns, peer, 1), None);
            assert_eq!(servers.server(netns + 1, peer, 0), None);
            socket.send_to(b"answer", peer).unwrap();
            assert_eq!(finish(child), format!("answer {server} 53"));
        }
    });
}

#[test]
fn accelerated_pods_send_past_tcp_and_others_do_not() {
    on_a_node("capture::accelerated_pods_send_past_tcp_and_others_do_not", |bed| {
        let mut kernel = bed.kernel();
        for (number, accelerated) in [(5, false), (6, true)] {
            let pod = bed.pod(number);
            let mut facts = pod.facts();
            facts.accelerated = accelerated;
            let enrolled = kernel.enrol(&facts).unwrap();
            assert!(enrolled.remarks.is_empty(), "{enrolled:?}");
            let proxy = serve(&mut kernel, enrolled.slot);
            // It waits for the first byte, so that the proxy's end is there.
            let program = format!(
                "import socket; s=socket.create_connection(('{}',80)); s.settimeout(20); s.recv(1)\n\
                 s.sendall(b'x'*5000); s.shutdown(socket.SHUT_WR); print(s.recv(99).decode())",
                pod.node4
            );
            let child = pod.spawn(&program);
            let (mut socket, _) = proxy.out4.accept().unwrap();
            socket.write_all(b"1").unwrap();
            let mut received = Vec::new();
            socket.read_to_end(&mut received).unwrap();
            socket.write_all(received.len().to_string().as_bytes()).unwrap();
            drop(socket);
            assert_eq!(finish(child), "5000");
            let counters = kernel.counters().unwrap();
            let redirected =
                counters.iter().find(|(counter, _)| *counter == Counter::FastRedirected).unwrap().1;
            assert_eq!(redirected > 0, accelerated, "{redirected}");
        }
    });
}
