//! A node and its pods. Each test runs again in a process of its own inside a network namespace that
//! stands for the node, so that nothing is ever attached to an interface of this machine.

use std::{
    env, fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use loader::{
    DnsPorts, Enrolled, Family, Kernel, Listeners, Netns, PodFacts, Settings, Slot, SocketKind, cgroup_id,
    cgroup_root, local_port, own_cgroup,
};
use std::{
    net::{TcpListener, UdpSocket},
    os::fd::AsFd,
};

const NODE: &str = "LOADER_TEST_NODE";

/// What is made for one test and removed after it.
pub struct Bed {
    name: String,
    pub folder: PathBuf,
}

/// Runs `body` on a node of its own; `test` is the test's whole path.
pub fn on_a_node(test: &str, body: impl FnOnce(&Bed)) {
    if let Ok(name) = env::var(NODE) {
        let folder = Path::new("/run").join(&name);
        body(&Bed { name, folder });
        return;
    }
    assert!(rustix_is_root(), "these tests need root");
    let outer = Outer::new(test);
    let program = env::current_exe().unwrap();
    // Like the agent, in a cgroup of its own.
    let cgroup = cgroup_root().unwrap().join(&outer.0).join("agent");
    fs::create_dir_all(&cgroup).unwrap();
    let enter =
        "echo $$ > $0/cgroup.procs && exec nsenter --net=/run/netns/$1 \"$2\" \"$3\" \"$4\" \"$5\" \"$6\"";
    let status = Command::new("sh")
        .args(["-c", enter])
        .arg(&cgroup)
        .arg(&outer.0)
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(NODE, &outer.0)
        .status()
        .unwrap();
    assert!(status.success(), "{test} inside its node: {status}");
}

fn rustix_is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

struct Outer(String);

impl Outer {
    fn new(test: &str) -> Self {
        let short: String = test.chars().filter(char::is_ascii_alphanumeric).rev().take(8).collect();
        let name = format!("fwl{}{short}", std::process::id());
        let outer = Self(name.clone());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let bpf = format!("/run/{name}/bpf");
        fs::create_dir_all(&bpf).unwrap();
        run("mount", &["-t", "bpf", "bpf", &bpf]);
        fs::create_dir_all(cgroup_root().unwrap().join(&name)).unwrap();
        outer
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let name = &self.0;
        quietly("ip", &["netns", "del", name]);
        quietly("umount", &[&format!("/run/{name}/bpf")]);
        let listed =
            Command::new("ip").args(["netns", "list"]).output().map(|out| out.stdout).unwrap_or_default();
        for line in String::from_utf8_lossy(&listed).lines() {
            let netns = line.split(' ').next().unwrap_or_default();
            if netns.starts_with(&format!("{name}-")) {
                quietly("ip", &["netns", "del", netns]);
            }
        }
        let _ = fs::remove_dir_all(format!("/run/{name}"));
        let Ok(root) = cgroup_root() else { return };
        for entry in fs::read_dir(root.join(name)).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(root.join(name));
    }
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stderr(Stdio::null()).status();
}

/// A pod: its own namespace, joined to the node by a veth pair.
pub struct Pod {
    pub netns: String,
    pub cgroup: PathBuf,
    pub ip4: IpAddr,
    pub ip6: IpAddr,
    pub node4: IpAddr,
    pub node6: IpAddr,
}

impl Bed {
    /// Namespaces whose names begin so are removed after the test.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn bpffs(&self) -> PathBuf {
        self.folder.join("bpf")
    }

    pub fn settings(&self) -> Settings {
        let allowed = cgroup_id(&own_cgroup().unwrap()).unwrap();
        Settings { bpffs: self.bpffs(), allowed_cgroups: vec![allowed], origins: 1024 }
    }

    pub fn kernel(&self) -> Kernel {
        Kernel::open(&self.settings()).unwrap()
    }

    /// `number` from 1 to 200.
    pub fn pod(&self, number: u8) -> Pod {
        let netns = format!("{}-{number}", self.name);
        let link = format!("v{number}");
        let cgroup = cgroup_root().unwrap().join(&self.name).join(number.to_string());
        fs::create_dir_all(&cgroup).unwrap();
        run("ip", &["netns", "add", &netns]);
        run("ip", &["-n", &netns, "link", "set", "lo", "up"]);
        // A veth with its peer's number may be taken for down for a second.
        let peer = ["peer", "name", "eth0", "index", "100000", "netns", &netns];
        run("ip", &[&["link", "add", &link, "type", "veth"], &peer[..]].concat());
        let address = |last| IpAddr::from(Ipv4Addr::new(10, 78, number, last));
        let address6 = |last| IpAddr::from(Ipv6Addr::new(0xfd78, 0, 0, u16::from(number), 0, 0, 0, last));
        let (node4, ip4, node6, ip6) = (address(1), address(2), address6(1), address6(2));
        let add = |netns: &[&str], device: &str, v4: IpAddr, v6: IpAddr| {
            for (ip, length) in [(v4, 24), (v6, 64)] {
                let ip = format!("{ip}/{length}");
                let nodad: &[&str] = if length == 64 { &["nodad"] } else { &[] };
                run("ip", &[netns, &["addr", "add", &ip, "dev", device], nodad].concat());
            }
            run("ip", &[netns, &["link", "set", device, "up"]].concat());
        };
        add(&[], &link, node4, node6);
        // The node asks for the pod from a link-local address, and the kernel's own is not usable for
        // two seconds (duplicate address detection, RFC 4862 section 5.4).
        run("ip", &["addr", "add", "fe80::1/64", "dev", &link, "nodad"]);
        add(&["-n", &netns], "eth0", ip4, ip6);
        run("ip", &["-n", &netns, "route", "add", "default", "via", &node4.to_string()]);
        run("ip", &["-n", &netns, "-6", "route", "add", "default", "via", &node6.to_string()]);
        Pod { netns, cgroup, ip4, ip6, node4, node6 }
    }
}

impl Pod {
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.netns)
    }

    pub fn facts(&self) -> PodFacts {
        PodFacts {
            name: format!("test/{}", self.netns),
            netns: Netns::open(self.path()).unwrap(),
            cgroup: self.cgroup.clone(),
            accelerated: false,
        }
    }

    /// A Python program in the pod: in its cgroup from its first instruction.
    pub fn spawn(&self, program: &str) -> Child {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --net={} python3 -u -c \"$1\"",
            self.cgroup.display(),
            self.path().display()
        );
        Command::new("sh")
            .args(["-c", &script, "sh", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// Its last line.
    pub fn python(&self, program: &str) -> String {
        finish(self.spawn(program))
    }

    /// Opens a connection, reads all, and tells what came or what failed.
    pub fn connects(&self, to: IpAddr, port: u16) -> String {
        self.python(&client(to, port))
    }

    /// Rules, routes and sysctls of the namespace, but for link-local addresses, which come by themselves.
    pub fn netns_state(&self) -> String {
        let netns = self.netns.as_str();
        let mut state = String::new();
        for family in ["-4", "-6"] {
            state += &run("ip", &["-n", netns, family, "rule"]);
            let routes = run("ip", &["-n", netns, family, "route", "show", "table", "all"]);
            state
                .extend(routes.lines().filter(|line| !line.contains("fe80")).map(|line| format!("{line}\n")));
        }
        let read = "cat /proc/sys/net/ipv4/tcp_fwmark_accept /proc/sys/net/ipv4/fwmark_reflect \
                    /proc/sys/net/ipv6/fwmark_reflect";
        state += &run("nsenter", &[&format!("--net={}", self.path().display()), "sh", "-c", read]);
        state
    }
}

pub fn client(to: IpAddr, port: u16) -> String {
    format!(
        "import socket,errno\n\
         try:\n\
         \x20 s=socket.create_connection(('{to}',{port}),timeout=20)\n\
         \x20 d=b''\n\
         \x20 while True:\n\
         \x20  p=s.recv(4096)\n\
         \x20  if not p: break\n\
         \x20  d+=p\n\
         \x20 print(d.decode()+' '+s.getpeername()[0])\n\
         except OSError as e: print(errno.errorcode.get(e.errno,str(e)))"
    )
}

pub fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let Output { stdout, status, .. } = child.wait_with_output().unwrap();
    assert!(status.success(), "{status}");
    String::from_utf8(stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}

/// Whether a connection is made within a second.
pub fn reaches(pod: &Pod, to: IpAddr, port: u16) -> bool {
    let program = format!(
        "import socket\n\
         try: socket.create_connection(('{to}',{port}),timeout=1); print('open')\n\
         except OSError: print('closed')"
    );
    pod.python(&program) == "open"
}

/// What the proxy holds of a pod.
pub struct Proxy {
    pub in4: TcpListener,
    pub in6: TcpListener,
    pub out4: TcpListener,
    pub out6: TcpListener,
    /// First of its family; the others have none.
    pub dns4: UdpSocket,
    pub dns6: UdpSocket,
}

/// Makes listeners in the pod, gives them its connections and lets it go.
pub fn serve(kernel: &mut Kernel, slot: Slot) -> Proxy {
    let listener = |family| {
        let socket = kernel.sockets(slot, SocketKind::Listener(family), 1).unwrap().remove(0);
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(false).unwrap();
        listener
    };
    let dns = |family| {
        let socket = UdpSocket::from(kernel.sockets(slot, SocketKind::Dns(family), 1).unwrap().remove(0));
        socket.set_nonblocking(false).unwrap();
        socket
    };
    let proxy = Proxy {
        in4: listener(Family::V4),
        in6: listener(Family::V6),
        out4: listener(Family::V4),
        out6: listener(Family::V6),
        dns4: dns(Family::V4),
        dns6: dns(Family::V6),
    };
    let mut ports = DnsPorts::default();
    ports.v4[0] = local_port(&proxy.dns4).unwrap();
    ports.v6[0] = local_port(&proxy.dns6).unwrap();
    let listeners = Listeners {
        in4: proxy.in4.as_fd(),
        in6: Some(proxy.in6.as_fd()),
        out4: proxy.out4.as_fd(),
        out6: Some(proxy.out6.as_fd()),
    };
    kernel.serve(slot, &listeners, ports).unwrap();
    kernel.ready(slot).unwrap();
    proxy
}

pub fn enrol(kernel: &mut Kernel, pod: &Pod) -> Enrolled {
    kernel.enrol(&pod.facts()).unwrap()
}

/// Writes a line to a child's input.
pub fn tell(child: &mut Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
}
