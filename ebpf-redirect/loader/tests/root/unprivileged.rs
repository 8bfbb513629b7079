//! The proxy's part without any privilege.

use std::{fs, io::Write, net::TcpListener, thread};

use loader::{
    Counter, Netns,
    proxy::{Counters, DnsOrigins, Origins},
};
use rustix::{
    process::{Gid, Uid},
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::bed::{enrol, on_a_node, serve};

#[test]
fn maps_are_read_without_any_privilege() {
    on_a_node("unprivileged::maps_are_read_without_any_privilege", |bed| {
        let pod = bed.pod(1);
        let netns = Netns::open(pod.path()).unwrap().cookie();
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let proxy = serve(&mut kernel, slot);
        let maps = kernel.proxy_maps().unwrap();
        let out4: TcpListener = proxy.out4;
        let worker = thread::spawn(move || {
            let (user, group) = (Uid::from_raw(65532), Gid::from_raw(65532));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            set_no_new_privs(true).unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(
                status.contains("CapPrm:\t0000000000000000") && status.contains("CapEff:\t0000000000000000")
            );

            let origins = Origins::from_fd(maps.origins).unwrap();
            let dns = DnsOrigins::from_fd(maps.dns_origins).unwrap();
            let counters = Counters::from_fd(maps.counters).unwrap();
            let (mut socket, peer) = out4.accept().unwrap();
            let origin = origins.take(netns, peer).unwrap();
            assert!(origins.take(netns, peer).is_none(), "taken twice");
            assert!(dns.server(netns, peer, 0).is_none());
            let read = counters.read().unwrap();
            assert!(read.iter().any(|(counter, value)| *counter == Counter::RedirectedV4 && *value > 0));
            socket.write_all(origin.address.socket_addr().to_string().as_bytes()).unwrap();
        });
        assert_eq!(pod.connects(pod.node4, 81), format!("{}:81 {}", pod.node4, pod.node4));
        worker.join().unwrap();
        // Another map in the place of one is refused.
        let maps = kernel.proxy_maps().unwrap();
        assert!(Origins::from_fd(maps.counters).is_err());
        assert!(Counters::from_fd(maps.dns_origins).is_err());
    });
}
