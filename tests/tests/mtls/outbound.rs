//! Servers that are not who they should be: the gateway does not speak to them, says why, and there is
//! no other way around.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use certs::{Authority, KeyUse, Leaf, OddIssuer, OddRequest, Purpose, odd_self_signed};
use identity::spiffe::{Bundle, PeerVerifier, TrustBundles};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{
    gateway::*,
    stand::{SERVER, around_now, usual},
};

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// A TLS server that another certificate can be given to while it runs.
struct Server {
    address: SocketAddr,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    /// Connections whose handshake was whole on this side, and on which something was said.
    heard: Arc<AtomicU64>,
}

impl Server {
    async fn start(tls: ServerConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tls, heard) = (Arc::new(Mutex::new(Arc::new(tls))), Arc::new(AtomicU64::new(0)));
        let (current, count) = (Arc::clone(&tls), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, heard) = (Arc::clone(&current.lock().unwrap()), Arc::clone(&count));
                // Its client may leave at any moment.
                tokio::spawn(async move { converse(socket, tls, &heard).await.unwrap_or_default() });
            }
        });
        Self { address, tls, heard }
    }

    fn becomes(&self, tls: ServerConfig) {
        *self.tls.lock().unwrap() = Arc::new(tls);
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::SeqCst)
    }
}

async fn converse(socket: TcpStream, tls: Arc<ServerConfig>, heard: &AtomicU64) -> io::Result<()> {
    let mut io = TlsAcceptor::from(tls).accept(socket).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
        if head.len() == 1 {
            heard.fetch_add(1, Ordering::SeqCst);
        }
    }
    io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await?;
    io.shutdown().await
}

impl World {
    fn tls(&self, leaf: &Leaf, versions: &[&'static SupportedProtocolVersion], asks: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = if asks {
            let bundle = Bundle::from_pem(self.root.certificate_pem().as_bytes()).unwrap();
            let bundles = TrustBundles::new(1).with_domain("cluster.local", bundle).unwrap();
            config.with_client_cert_verifier(Arc::new(PeerVerifier::anyone(Arc::new(bundles))))
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(leaf.chain_der(), leaf.key_der()).unwrap();
        config.alpn_protocols = ["h2", "http/1.1", "istio"].map(|name| name.as_bytes().to_vec()).to_vec();
        config
    }

    fn odd(&self, spoil: impl FnOnce(&mut OddRequest)) -> Leaf {
        self.root.issue_odd(&spoilt(spoil)).unwrap()
    }
}

fn spoilt(spoil: impl FnOnce(&mut OddRequest)) -> OddRequest {
    let mut request = OddRequest::workload(SERVER);
    spoil(&mut request);
    request
}

/// Name of the case, certificate, reason.
fn cases(world: &World, revoked: Leaf) -> Vec<(&'static str, Leaf, &'static str)> {
    let root = &world.root;
    let other = "spiffe://cluster.local/ns/datamesh/sa/somebody-else";
    let intermediate = root.odd_intermediate("intermediate", &OddIssuer::default()).unwrap();
    let stranger = Authority::mint("a stranger").unwrap();
    let partner = |id: &str| world.partners.issue_odd(&OddRequest::workload(id)).unwrap();
    vec![
        ("the right chain and the wrong identity", usual(root, other), "unexpected_identity"),
        (
            "a partner of the same name",
            partner("spiffe://partner.example/ns/datamesh/sa/fhir-server"),
            "unexpected_identity",
        ),
        ("another domain's root", partner(SERVER), "wrong_trust_domain"),
        ("nobody's root", usual(&stranger, SERVER), "incomplete_chain"),
        ("expired", world.odd(|leaf| leaf.validity = Some(around_now(-7200, -60))), "expired"),
        ("not yet valid", world.odd(|leaf| leaf.validity = Some(around_now(7200, 9000))), "not_yet_valid"),
        ("two URI SANs", world.odd(|leaf| leaf.uris.push(other.to_owned())), "many_uri_sans"),
        ("no SAN", world.odd(|leaf| leaf.uris.clear()), "no_san"),
        (
            "DNS SAN only",
            world.odd(|leaf| (leaf.uris, leaf.dns) = (Vec::new(), vec!["fhir-server".to_owned()])),
            "no_uri_san",
        ),
        (
            "a slash behind the id",
            world.odd(|leaf| leaf.uris = vec![format!("{SERVER}/")]),
            "invalid_spiffe_id",
        ),
        ("no key usage", world.odd(|leaf| leaf.uses.clear()), "leaf_key_usage"),
        ("signs certificates", world.odd(|leaf| leaf.uses.push(KeyUse::KeyCertSign)), "leaf_key_usage"),
        ("a client's", world.odd(|leaf| leaf.purpose = Some(Purpose::Client)), "extended_key_usage"),
        ("CA flag", world.odd(|leaf| leaf.ca = true), "ca_as_leaf"),
        ("self-signed", odd_self_signed(&spoilt(|_| {})).unwrap(), "self_signed"),
        ("intermediate missing", intermediate.issue_alone(&spoilt(|_| {})).unwrap(), "incomplete_chain"),
        ("revoked", revoked, "revoked"),
    ]
}

async fn refuses(tunnel: impl Fn(SocketAddr) -> String, reaches: bool) {
    let world = World::new();
    let [good, revoked] = [(); 2].map(|()| world.odd(|_| {}));
    let list = world.root.revocation_list(&[&revoked], around_now(-60, 3600)).unwrap();
    let server = Server::start(world.tls(&good, BOTH, true)).await;
    let proxy = gateway(&world, &tunnel(server.address), server.address, &list).await;
    for (case, leaf, reason) in cases(&world, revoked) {
        let before = count(&proxy, reason);
        server.becomes(world.tls(&leaf, BOTH, true));
        assert_eq!(get(&proxy).await, 503, "{case}");
        told(&proxy, case, reason, before).await;
    }
    // The right one, who goes no further than TLS 1.2, and says so.
    let before = count(&proxy, "refused_by_peer");
    server.becomes(world.tls(&good, &[&version::TLS12], true));
    assert_eq!(get(&proxy).await, 503, "TLS 1.2");
    told(&proxy, "TLS 1.2", "refused_by_peer", before).await;
    // The right one, who does not want to know who we are.
    let before = count(&proxy, "not_asked_for_certificate");
    server.becomes(world.tls(&good, BOTH, false));
    assert_eq!(get(&proxy).await, 503, "no client certificate asked for");
    told(&proxy, "no client certificate asked for", "not_asked_for_certificate", before).await;
    assert_eq!(server.heard(), 0, "nobody was spoken to\n{}", proxy.log());
    if reaches {
        server.becomes(world.tls(&good, BOTH, true));
        assert_eq!((get(&proxy).await, server.heard()), (200, 1), "{}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_server_behind_a_sidecars_port_is_not_spoken_to() {
    refuses(|_| "{kind: sidecar}".to_owned(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_server_behind_hbone_is_not_spoken_to() {
    refuses(|server| format!("{{kind: hbone, address: \"{server}\"}}"), false).await;
}
