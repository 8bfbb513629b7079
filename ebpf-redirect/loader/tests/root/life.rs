//! Restarts, changes and ends.

use std::fs;

use loader::{EnrolError, Kernel, LoadError};

use super::bed::{Bed, enrol, on_a_node, run, serve};

fn links(bed: &Bed) -> Vec<String> {
    let folder = bed.bpffs().join("fhirward/links");
    let mut found = Vec::new();
    for slot in fs::read_dir(folder).unwrap() {
        let slot = slot.unwrap();
        for link in fs::read_dir(slot.path()).unwrap() {
            let link = link.unwrap().file_name().into_string().unwrap();
            found.push(format!("{}/{link}", slot.file_name().into_string().unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn an_agent_that_comes_back_adopts_its_pods() {
    on_a_node("life::an_agent_that_comes_back_adopts_its_pods", |bed| {
        let pod = bed.pod(1);
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let _proxy = serve(&mut kernel, slot);
        assert!(!enrol(&mut kernel, &pod).fresh);
        drop(kernel);

        let mut kernel = bed.kernel();
        let adopted = kernel.adopted().unwrap();
        let [found] = adopted.as_slice() else { panic!("{adopted:?}") };
        assert!(found.complete && found.ready && found.netns_alive && found.cgroup_alive, "{found:?}");
        assert_eq!((found.slot, &found.name), (slot, &pod.facts().name));
        assert!(!enrol(&mut kernel, &pod).fresh);

        // A program that is gone: not whole, told so, never ready, and mended.
        let pin = bed.bpffs().join(format!("fhirward/links/{slot}/connect6"));
        fs::remove_file(pin).unwrap();
        let found = kernel.adopted().unwrap().remove(0);
        assert!(!found.complete && found.missing == ["connect6"], "{found:?}");
        assert!(kernel.ready(slot).is_err());
        assert!(enrol(&mut kernel, &pod).fresh);
        let found = kernel.adopted().unwrap().remove(0);
        assert!(found.complete && !found.ready, "{found:?}");
    });
}

#[test]
fn nothing_is_left_after_unenrolment() {
    on_a_node("life::nothing_is_left_after_unenrolment", |bed| {
        let pod = bed.pod(1);
        // One that was set before stays set.
        let set = "echo 1 > /proc/sys/net/ipv4/tcp_fwmark_accept";
        run("nsenter", &[&format!("--net={}", pod.path().display()), "sh", "-c", set]);
        let before = pod.netns_state();
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let proxy = serve(&mut kernel, slot);
        assert_ne!(pod.netns_state(), before);
        assert_eq!(links(bed).len(), 15, "{:?}", links(bed));
        // By an agent that has not enrolled it: the namespace is found by its numbers.
        drop(kernel);
        let mut kernel = bed.kernel();
        kernel.unenrol(slot).unwrap();
        assert_eq!(pod.netns_state(), before);
        assert!(links(bed).is_empty() && kernel.adopted().unwrap().is_empty());
        assert!(matches!(kernel.unenrol(slot), Err(LoadError::NotEnrolled(_))));
        for map in ["READY", "DNS_PORTS", "PODS", "LISTEN"] {
            let pin = bed.bpffs().join("fhirward/maps").join(map);
            let dump = run("bpftool", &["-j", "map", "dump", "pinned", pin.to_str().unwrap()]);
            assert!(!dump.contains("\"value\":[\"0x"), "{map}: {dump}");
        }
        let outside = std::net::TcpListener::bind((pod.node4, 0)).unwrap();
        let port = outside.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || drop(outside.accept()));
        assert_eq!(pod.connects(pod.node4, port), format!(" {}", pod.node4));
        thread.join().unwrap();
        drop(proxy);
    });
}

fn program_of(bed: &Bed, link: &str) -> String {
    let pin = bed.bpffs().join("fhirward/links").join(link);
    let told = run("bpftool", &["link", "show", "pinned", pin.to_str().unwrap()]);
    told.split_whitespace().skip_while(|word| *word != "prog").nth(1).unwrap().to_owned()
}

#[test]
fn programs_are_renewed_while_the_pod_goes_on() {
    on_a_node("life::programs_are_renewed_while_the_pod_goes_on", |bed| {
        let pod = bed.pod(1);
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let proxy = serve(&mut kernel, slot);
        let links = ["0/connect4", "0/inbound", "0/sock_ops", "0/cgroup_guard", "0/guard_2"];
        let before = links.map(|link| program_of(bed, link));
        // The same again changes nothing; other constants, as another build would, change all.
        assert!(!enrol(&mut kernel, &pod).fresh);
        assert_eq!(links.map(|link| program_of(bed, link)), before);
        drop(kernel);
        let mut kernel = bed.kernel();
        let mut facts = pod.facts();
        facts.accelerated = true;
        assert!(!kernel.enrol(&facts).unwrap().fresh);
        for (link, before) in links.iter().zip(before) {
            assert_ne!(program_of(bed, link), before, "{link}");
        }
        let thread = std::thread::spawn(move || drop(proxy.out4.accept().unwrap()));
        assert_eq!(pod.connects(pod.node4, 80), format!(" {}", pod.node4));
        thread.join().unwrap();
    });
}

#[test]
fn a_pod_whose_path_has_died_is_found_by_its_numbers() {
    on_a_node("life::a_pod_whose_path_has_died_is_found_by_its_numbers", |bed| {
        let pod = bed.pod(1);
        let mut first = pod.spawn("input()");
        let mut facts = pod.facts();
        let path = format!("/proc/{}/ns/net", first.id());
        // The shell becomes the program; until then it is in the node's namespace.
        let cookie = facts.netns.cookie();
        for _ in 0..1000 {
            if loader::Netns::open(&path).is_ok_and(|netns| netns.cookie() == cookie) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        facts.netns = loader::Netns::open(&path).unwrap();
        assert_eq!(facts.netns.cookie(), cookie);
        let mut kernel = bed.kernel();
        let slot = kernel.enrol(&facts).unwrap().slot;
        first.kill().unwrap();
        first.wait().unwrap();
        let _proxy = serve(&mut kernel, slot);
        assert!(kernel.reconcile(slot).unwrap().is_empty());
        assert_eq!(kernel.end_old_connections(slot).unwrap(), 0);
        kernel.unenrol(slot).unwrap();
        assert!(links(bed).is_empty());
    });
}

#[test]
fn pods_come_and_go_without_leaving_descriptors() {
    on_a_node("life::pods_come_and_go_without_leaving_descriptors", |bed| {
        let pod = bed.pod(1);
        let mut kernel = bed.kernel();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..10 {
            let slot = enrol(&mut kernel, &pod).slot;
            drop(serve(&mut kernel, slot));
            kernel.reconcile(slot).unwrap();
            kernel.collect().unwrap();
            kernel.unenrol(slot).unwrap();
        }
        assert_eq!(open(), before);
    });
}

#[test]
fn release_leaves_nothing_at_all() {
    on_a_node("life::release_leaves_nothing_at_all", |bed| {
        let pods = [bed.pod(1), bed.pod(2)];
        let before = pods.each_ref().map(|pod| pod.netns_state());
        let mut kernel = bed.kernel();
        for pod in &pods {
            let slot = enrol(&mut kernel, pod).slot;
            serve(&mut kernel, slot);
        }
        kernel.release().unwrap();
        assert!(!bed.bpffs().join("fhirward").exists());
        assert_eq!(pods.each_ref().map(|pod| pod.netns_state()), before);
        // And it begins anew.
        assert!(bed.kernel().adopted().unwrap().is_empty());
    });
}

#[test]
fn pods_that_are_gone_are_collected() {
    on_a_node("life::pods_that_are_gone_are_collected", |bed| {
        let (gone, stays) = (bed.pod(1), bed.pod(2));
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &gone).slot;
        enrol(&mut kernel, &stays);
        assert!(kernel.collect().unwrap().is_empty());
        run("ip", &["netns", "del", &gone.netns]);
        // The kernel takes namespaces down in the background.
        let mut collected = Vec::new();
        for _ in 0..600 {
            collected = kernel.collect().unwrap();
            if !collected.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(collected.iter().map(|pod| pod.slot).collect::<Vec<_>>(), [slot]);
        assert!(links(bed).iter().all(|link| !link.starts_with(&format!("{slot}/"))), "{:?}", links(bed));
        assert_eq!(kernel.adopted().unwrap().len(), 1);
    });
}

#[test]
fn interfaces_that_come_are_guarded_and_those_that_go_forgotten() {
    on_a_node("life::interfaces_that_come_are_guarded_and_those_that_go_forgotten", |bed| {
        let pod = bed.pod(1);
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let before = links(bed);
        run("ip", &["link", "add", "extra", "type", "veth", "peer", "name", "net1", "netns", &pod.netns]);
        assert!(kernel.reconcile(slot).unwrap().is_empty());
        assert_eq!(links(bed).len(), before.len() + 2, "{:?}", links(bed));
        // A pair within the pod leads nowhere: guarded inside, nothing to say.
        run(
            "ip",
            &["-n", &pod.netns, "link", "add", "name", "pair0", "type", "veth", "peer", "name", "pair1"],
        );
        assert!(kernel.reconcile(slot).unwrap().is_empty());
        assert_eq!(links(bed).len(), before.len() + 4, "{:?}", links(bed));
        run("ip", &["link", "del", "extra"]);
        run("ip", &["-n", &pod.netns, "link", "del", "pair0"]);
        assert!(kernel.reconcile(slot).unwrap().is_empty());
        assert_eq!(links(bed), before);
        // What ends elsewhere is said.
        run("ip", &["-n", &pod.netns, "link", "add", "name", "far", "type", "veth", "peer", "name", "off"]);
        let other = bed.pod(2);
        run("ip", &["-n", &pod.netns, "link", "set", "off", "netns", &other.netns]);
        let remarks = kernel.reconcile(slot).unwrap();
        assert!(remarks.len() == 1 && remarks[0].contains("far"), "{remarks:?}");
    });
}

#[test]
fn bug_an_interface_that_was_moved_to_a_namespace_of_the_pods_lost_its_guards() {
    on_a_node("life::bug_an_interface_that_was_moved_to_a_namespace_of_the_pods_lost_its_guards", |bed| {
        let pod = bed.pod(1);
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let before = links(bed);
        let made = format!("{}-made", bed.name());
        run("ip", &["netns", "add", &made]);
        run("ip", &["-n", &pod.netns, "link", "set", "eth0", "netns", &made]);
        kernel.reconcile(slot).unwrap();
        assert_eq!(links(bed), before, "its guards go with it");
        // It comes back with another number, since its own is taken.
        let pair = ["name", "taken", "index", "2", "type", "veth", "peer", "name", "other"];
        run("ip", &[["-n", &pod.netns, "link", "add"].as_slice(), &pair].concat());
        run("ip", &["-n", &made, "link", "set", "eth0", "netns", &pod.netns]);
        kernel.reconcile(slot).unwrap();
        kernel.reconcile(slot).unwrap();
        assert!(before.iter().all(|name| links(bed).contains(name)), "{:?}", links(bed));
        // When the pair is gone nothing keeps them.
        run("ip", &["-n", &pod.netns, "link", "del", "eth0"]);
        run("ip", &["-n", &pod.netns, "link", "del", "taken"]);
        kernel.reconcile(slot).unwrap();
        assert!(links(bed).iter().all(|name| !name.contains("guard_2")), "{:?}", links(bed));
    });
}

#[test]
fn a_cgroup_made_anew_is_taken_over_and_one_of_another_pod_refused() {
    on_a_node("life::a_cgroup_made_anew_is_taken_over_and_one_of_another_pod_refused", |bed| {
        let (pod, other) = (bed.pod(1), bed.pod(2));
        let mut kernel = bed.kernel();
        let slot = enrol(&mut kernel, &pod).slot;
        let _proxy = serve(&mut kernel, slot);
        fs::remove_dir(&pod.cgroup).unwrap();
        fs::create_dir(&pod.cgroup).unwrap();
        let again = enrol(&mut kernel, &pod);
        assert!(again.slot == slot && again.fresh, "{again:?}");
        let found = kernel.adopted().unwrap().remove(0);
        assert!(found.complete && found.cgroup_alive && !found.ready, "{found:?}");
        assert_eq!(pod.connects(pod.node4, 9), "EPERM");

        let mut facts = other.facts();
        facts.cgroup.clone_from(&pod.cgroup);
        assert!(matches!(kernel.enrol(&facts), Err(EnrolError::Refused(why)) if why.contains("slot 0")));
        for around in [loader::cgroup_root().unwrap(), loader::own_cgroup().unwrap()] {
            facts.cgroup = around;
            assert!(
                matches!(kernel.enrol(&facts), Err(EnrolError::Refused(why)) if why.contains("agent itself"))
            );
        }
        facts.cgroup = bed.bpffs();
        assert!(matches!(kernel.enrol(&facts), Err(EnrolError::Refused(_))));
        facts = other.facts();
        facts.netns = loader::Netns::own().unwrap();
        assert!(matches!(kernel.enrol(&facts), Err(EnrolError::Refused(why)) if why.contains("hostNetwork")));
        assert_eq!(kernel.adopted().unwrap().len(), 1);
    });
}

#[test]
fn the_pins_are_one_agents_and_one_versions() {
    on_a_node("life::the_pins_are_one_agents_and_one_versions", |bed| {
        let settings = bed.settings();
        let kernel = bed.kernel();
        assert!(matches!(Kernel::open(&settings), Err(LoadError::Taken { .. })));
        drop(kernel);
        fs::create_dir(bed.bpffs().join("fhirward/version_99")).unwrap();
        assert!(matches!(Kernel::open(&settings), Err(LoadError::Version { found, .. }) if found == "99"));
        let everyone = loader::Settings { allowed_cgroups: vec![1], ..settings.clone() };
        fs::remove_dir(bed.bpffs().join("fhirward/version_99")).unwrap();
        assert!(matches!(Kernel::open(&everyone), Err(LoadError::RootCgroup)));
        let elsewhere = loader::Settings { bpffs: "/run".into(), ..settings };
        assert!(matches!(Kernel::open(&elsewhere), Err(LoadError::NotBpffs { .. })));
    });
}
