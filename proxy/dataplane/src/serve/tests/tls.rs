//! TLS with certificates from files: ALPN, reload, what is not TLS.

use std::{fs, path::Path};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;

fn write_pair(folder: &Path, name: &str) -> rustls_pki_types::CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    fs::write(folder.join("tls.crt"), pair.cert.pem()).unwrap();
    fs::write(folder.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
}

async fn connect(
    address: SocketAddr,
    root: &rustls_pki_types::CertificateDer<'static>,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let root = write_pair(folder.path(), "one.test");
    let upstream = Upstream::ok().await;
    let tls = Some(files(folder.path()));
    let house = House::start_with(upstream.address, Limits::default(), Terms::default(), tls).await;
    let io = connect(house.address, &root, "one.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(io);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("https://one.test/");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let mut io = connect(house.address, &root, "one.test", alpn).await.unwrap();
        io.write_all(LAST_GET).await.unwrap();
        assert_eq!(status(&read_all(&mut io).await), "200");
    }
    assert!(upstream.seen().contains("x-forwarded-proto: https"), "{}", upstream.seen());
}

#[tokio::test]
async fn a_changed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path(), "one.test");
    let upstream = Upstream::ok().await;
    let tls = Some(files(folder.path()));
    let house = House::start_with(upstream.address, Limits::default(), Terms::default(), tls).await;
    connect(house.address, &first, "one.test", &[]).await.unwrap();
    let second = write_pair(folder.path(), "two.test");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    connect(house.address, &second, "two.test", &[]).await.unwrap();
    assert!(connect(house.address, &first, "one.test", &[]).await.is_err());
    fs::write(folder.path().join("tls.crt"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    connect(house.address, &second, "two.test", &[]).await.unwrap();
}

#[tokio::test]
async fn what_is_not_tls_or_takes_too_long_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "one.test");
    let upstream = Upstream::ok().await;
    let limits = Limits { handshake_timeout_ms: 200, ..Limits::default() };
    let tls = Some(files(folder.path()));
    let house = House::start_with(upstream.address, limits, Terms::default(), tls).await;
    assert!(!house.say(GET).await.contains("HTTP"));
    let mut silent = house.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(upstream.connections(), 0);
}
