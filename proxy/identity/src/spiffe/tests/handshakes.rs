//! The verifier in real handshakes, both ways, without a socket.

use std::{io, sync::Arc};

use ::rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;

use super::{super::parse_id, *};

fn server(mesh: &Mesh, leaf: &Leaf) -> ServerConfig {
    let verifier = PeerVerifier::anyone(Arc::new(bundles(&[("cluster.local", &mesh.root)])));
    let provider = Arc::new(::rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(leaf.chain_der(), leaf.key_der())
        .unwrap()
}

fn client(mesh: &Mesh, expected: &str, leaf: Option<&Leaf>) -> ClientConfig {
    let expected = parse_id(expected).unwrap();
    let bundles = Arc::new(bundles(&[("cluster.local", &mesh.root)]));
    let verifier = PeerVerifier::exactly(bundles, expected);
    let provider = Arc::new(::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match leaf {
        Some(leaf) => config.with_client_auth_cert(leaf.chain_der(), leaf.key_der()).unwrap(),
        None => config.with_no_client_auth(),
    }
}

/// Shakes hands; gives each side's end.
fn shake(client: ClientConfig, server: ServerConfig) -> [Result<(), &'static str>; 2] {
    let name = ServerName::try_from("whatever.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let reason = |error: ::rustls::Error| handshake_reason(&io::Error::other(error));
    let (mut ends, mut bytes) = ([Ok(()), Ok(())], Vec::new());
    for _ in 0..8 {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && ends[1].is_ok() {
            server.read_tls(&mut rest).unwrap();
            ends[1] = server.process_new_packets().map(|_| ()).map_err(reason);
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && ends[0].is_ok() {
            client.read_tls(&mut rest).unwrap();
            ends[0] = client.process_new_packets().map(|_| ()).map_err(reason);
        }
    }
    ends
}

#[test]
fn both_ends_know_each_other() {
    let mesh = Mesh::new();
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    assert_eq!(shake(client(&mesh, ID, Some(&leaf)), server(&mesh, &leaf)), [Ok(()), Ok(())]);
}

#[test]
fn the_right_chain_with_the_wrong_identity_is_refused_by_the_client() {
    let mesh = Mesh::new();
    let leaf = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let other = "spiffe://cluster.local/ns/datamesh/sa/other";
    let [client, _] = shake(client(&mesh, other, Some(&leaf)), server(&mesh, &leaf));
    assert_eq!(client, Err("unexpected_identity"));
}

#[test]
fn a_client_without_certificate_or_with_a_bad_one_is_refused_by_its_reason() {
    let mesh = Mesh::new();
    let own = mesh.root.issue_odd(&OddRequest::workload(ID)).unwrap();
    let [_, server_end] = shake(client(&mesh, ID, None), server(&mesh, &own));
    assert_eq!(server_end, Err("no_certificate"));
    let twice = OddRequest { uris: vec![ID.to_owned(); 2], ..OddRequest::workload(ID) };
    let twice = mesh.root.issue_odd(&twice).unwrap();
    let [_, server_end] = shake(client(&mesh, ID, Some(&twice)), server(&mesh, &own));
    assert_eq!(server_end, Err("many_uri_sans"));
}
