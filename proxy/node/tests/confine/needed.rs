//! What a proxy needs: a whole one is started and used, confined.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use certs::{Authority, LeafRequest};
use fhirward::{Node, Settings, settings::User};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with certificates and manifests, made before the rights are given up.
pub fn folder(user: User) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    std::fs::write(folder.path().join("manifests/namespace.yaml"), NAMESPACE).unwrap();
    if rustix::process::geteuid().is_root() {
        for path in [folder.path().to_owned(), folder.path().join("manifests")] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    folder
}

/// A proxy with TLS listener, keys of a provider, manifests that change, admin server and access log.
pub fn all(folder: &Path) {
    names_are_resolved();
    let authority = Authority::mint("confined").unwrap();
    let leaf = authority.issue(&LeafRequest::for_names(["proxy.example"])).unwrap();
    std::fs::write(folder.join("tls.crt"), leaf.chain_pem()).unwrap();
    std::fs::write(folder.join("tls.key"), leaf.key_pem()).unwrap();
    let file = folder.join("settings.yaml");
    std::fs::write(&file, SETTINGS).unwrap();
    let settings = Settings::load(&file).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let node = runtime.block_on(Node::start(settings, stop.clone())).unwrap();
    let mut signal = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap()
    };
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_millis(10), signal.recv()).await.unwrap_err();
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    let (admin, tls) = (node.admin(), node.address("tls").unwrap());
    assert!(get(admin, "/healthz").ends_with("ok\n"));
    let answer = https(tls, &authority);
    assert!(answer.starts_with("HTTP/1.1 "), "an answer over TLS: {answer:?}");
    // The watch on the manifests, through inotify.
    std::fs::write(folder.join("manifests/broken.yaml"), "kind: [").unwrap();
    eventually("a broken manifest is told of", || get(admin, "/readyz").contains("broken.yaml"));
    std::fs::remove_file(folder.join("manifests/broken.yaml")).unwrap();
    eventually("its end too", || !get(admin, "/readyz").contains("broken.yaml"));
    assert!(get(admin, "/metrics").contains("fhirward_capture_agent_connected 0"));
    stop.cancel();
    runtime.block_on(node.finished());
    let log = std::fs::read_to_string(folder.join("access.log")).unwrap();
    assert!(log.contains("proxy.example"), "the access log was written: {log:?}");
}

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: data}}\n";
const SETTINGS: &str = r#"
listeners:
- {name: tls, address: "127.0.0.1:0", gateway: {labels: {istio: ingressgateway}, port: 443}, tls: {certificate: tls.crt, key: tls.key}}
mesh: {manifests: [manifests]}
identity: {keyCacheDir: keys}
observe: {accessLog: {file: access.log}}
admin: {address: "127.0.0.1:0"}
capture: {socket: no-agent.sock, discover: true}
"#;

fn names_are_resolved() {
    use std::net::ToSocketAddrs as _;
    assert!(("localhost", 80).to_socket_addrs().unwrap().count() > 0);
    // A name that there is not (RFC 6761 section 6.4): the resolver is asked, and says so.
    assert!(("nothing.invalid", 80).to_socket_addrs().is_err());
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn https(address: SocketAddr, authority: &Authority) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let mut connection =
        ClientConnection::new(Arc::new(config), "proxy.example".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = Stream::new(&mut connection, &mut socket);
    stream
        .write_all(b"GET /fhir/metadata HTTP/1.1\r\nhost: proxy.example\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // Whether the other end says goodbye is not of interest.
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn eventually(what: &str, happens: impl Fn() -> bool) {
    let began = Instant::now();
    while !happens() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
