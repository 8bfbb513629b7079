//! openssl as a server that our gateway is led to: weak, old, or somebody else.

use std::{
    io::{BufRead, BufReader},
    process::Child,
};

use super::{
    gateway::{World, count, gateway, get, told},
    openssl::old_fashioned,
    *,
};

/// `openssl s_server -www`, which answers every request with a page. Dropping it ends it.
struct Server {
    child: Child,
}

impl Server {
    /// Listens when it comes back.
    fn start(at: SocketAddr, (certificate, key): (&Path, &Path), more: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", &at.to_string(), "-cipher", "DEFAULT:@SECLEVEL=0"])
            .args(more)
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl must be installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ACCEPT")), "openssl's server listens");
        // Its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssls_servers_are_not_spoken_to_where_they_are_weak_old_or_somebody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new();
    let own = |spiffe: &str, name: &str| {
        let leaf = world.root.issue(&LeafRequest::for_workload(spiffe)).unwrap();
        let written = leaf.write_to(&folder.path().join(name), &world.root).unwrap();
        (written.certificate, written.key)
    };
    let (good, other) = (own(SERVER, "good"), own(CLIENT, "other"));
    let old = |name: &str, bits: &str, digest: &str| {
        let (ca, certificate, key) = old_fashioned(folder.path(), SERVER, (name, bits, digest));
        (fs::read_to_string(ca).unwrap(), (certificate, key))
    };
    let (sound, short, sha1) =
        (old("sound", "2048", "-sha256"), old("short", "1024", "-sha256"), old("sha1", "2048", "-sha1"));
    world.trusted = [&sound.0, &short.0, &sha1.0].map(String::as_str).concat();
    let list = world.root.revocation_list(&[], stand::around_now(-60, 3600)).unwrap();
    let at = loopback().await;
    let proxy = gateway(&world, "{kind: sidecar}", at, &list).await;
    let asks = ["-Verify", "1", "-alpn", "istio-http/1.1,http/1.1"];
    for (case, (certificate, key), more, reason) in [
        ("somebody else", &other, &asks[..], "unexpected_identity"),
        ("RSA of 1024 bits", &short.1, &asks, "weak_key"),
        ("SHA-1", &sha1.1, &asks, "weak_signature"),
        ("TLS 1.2", &good, &[&asks[..], &["-tls1_2"]].concat(), "refused_by_peer"),
    ] {
        let before = count(&proxy, reason);
        let _server = Server::start(at, (certificate, key), more);
        assert_eq!(get(&proxy).await, 503, "{case}");
        told(&proxy, case, reason, before).await;
    }
    for (certificate, key) in [&good, &sound.1] {
        let _server = Server::start(at, (certificate, key), &asks);
        assert_eq!(get(&proxy).await, 200, "{}", proxy.log());
    }
}
