#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::server::NoServerSessionStorage;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::kit::{ALPN, Kit};
use crate::load::{Documents, Lane, Pacing, Protocol, Reactor, Report, Requests, Tls};

/// A server with the first workload's certificate that answers everything with 200.
fn server(kit: &Kit, resumes: bool, alpn: &str) -> SocketAddr {
    let files = &kit.workloads()[0].files;
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    if !resumes {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
                let mut buffer = [0; 4096];
                while matches!(stream.read(&mut buffer), Ok(read) if read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    address
}

fn run(target: SocketAddr, tls: Tls, pacing: Pacing) -> Report {
    let lane = Lane {
        target,
        protocol: Protocol::Http1,
        tls: Some(Arc::new(tls)),
        connections: 2,
        streams: 1,
        pacing,
        requests: Requests::Same(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice().into()),
        expect: 200,
    };
    let mut reactor = Reactor::new(0, Documents::new("{}")).unwrap();
    reactor.run(vec![lane], Duration::from_millis(200), Vec::new()).unwrap().remove(0)
}

fn kit() -> (tempfile::TempDir, Kit) {
    let folder = tempfile::tempdir().unwrap();
    let kit = Kit::new(folder.path(), 2).unwrap();
    (folder, kit)
}

#[test]
fn a_handshake_of_another_kind_than_its_row_says_fails_the_row() {
    let (_folder, kit) = kit();
    let (resuming, forgetful) = (server(&kit, true, ALPN), server(&kit, false, ALPN));
    let first = &kit.workloads()[0];
    let full = kit.client(first, Some(HandshakeKind::Full)).unwrap();
    let full = Tls { kind: Some(HandshakeKind::Full), ..full };
    let report = run(resuming, full.clone(), Pacing::Closed);
    assert_eq!(report.complaint(), None);
    assert!(report.answered >= 2);

    let warm = kit.client(first, Some(HandshakeKind::Resumed)).unwrap();
    assert_eq!(run(resuming, warm.clone(), Pacing::Closed).complaint(), None);
    let resumed = Tls { kind: Some(HandshakeKind::Resumed), ..warm };
    let report = run(resuming, resumed.clone(), Pacing::Closed);
    assert_eq!(report.complaint(), None);
    assert!(report.answered >= 2);

    // A session is remembered here, and full is asked for; nothing is remembered, and resumed is.
    let wrong = Tls { kind: Some(HandshakeKind::Full), ..resumed.clone() };
    assert!(run(resuming, wrong, Pacing::Closed).complaint().unwrap().contains("a handshake was"));
    let complaint = run(forgetful, resumed, Pacing::Closed).complaint().unwrap();
    assert!(complaint.contains("a handshake was"), "{complaint}");
}

#[test]
fn another_server_or_protocol_than_expected_fails_the_row() {
    let (_folder, kit) = kit();
    let right = server(&kit, true, ALPN);
    let [first, second] = [0, 1].map(|index| kit.client(&kit.workloads()[index], None).unwrap());
    assert_eq!(run(right, first.clone(), Pacing::Once).answered, 2);
    assert!(run(right, second, Pacing::Once).complaint().unwrap().contains("no connection"));
    let other = server(&kit, true, "http/1.1");
    assert!(run(other, first, Pacing::Once).complaint().unwrap().contains("no connection"));
}
