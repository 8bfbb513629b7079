//! Somebody who speaks HBONE by himself: HTTP/2 CONNECT over TLS, with or without a certificate. Whom he
//! speaks to he does not ask.

use std::{future::poll_fn, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Uri};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{Outcome, say, socket_for};

/// A slow machine is no failure, one that hangs is.
const PATIENCE: Duration = Duration::from_secs(20);
const LINE_MAX: usize = 8 * 1024;

/// Says `handshake`, then `status NUMBER`, then, where it was 200, `answer LINE` or `reset WHY`.
pub async fn run(to: SocketAddr, authority: &str, folder: Option<&str>, headers: &[&str]) -> Outcome<()> {
    let config = Arc::new(config(folder.map(Path::new))?);
    let socket = timeout(PATIENCE, socket_for(to)?.connect(to)).await??;
    let name = ServerName::from(to.ip());
    let tls = timeout(PATIENCE, TlsConnector::from(config).connect(name, socket)).await??;
    say("handshake");
    let (sender, connection) = timeout(PATIENCE, h2::client::handshake(tls)).await??;
    // It ends with the connection.
    tokio::spawn(connection);
    timeout(PATIENCE, connect(sender, authority, headers)).await?
}

async fn connect(sender: SendRequest<Bytes>, authority: &str, headers: &[&str]) -> Outcome<()> {
    let uri = Uri::builder().authority(authority).build()?;
    let mut request = Request::builder().method(Method::CONNECT).uri(uri);
    for header in headers {
        let (name, value) = header.split_once('=').ok_or("a header is NAME=VALUE")?;
        request = request.header(name, value);
    }
    let (response, mut stream) = sender.ready().await?.send_request(request.body(())?, false)?;
    let response = response.await?;
    say(&format!("status {}", response.status().as_u16()));
    if !response.status().is_success() {
        return Ok(());
    }
    stream.send_data(Bytes::from_static(b"who\n"), false)?;
    let mut body = response.into_body();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < LINE_MAX {
        match poll_fn(|context| body.poll_data(context)).await {
            Some(Ok(bytes)) => line.extend_from_slice(&bytes),
            Some(Err(error)) => {
                say(&format!("reset {error}"));
                return Ok(());
            }
            None => {
                say("reset by its end");
                return Ok(());
            }
        }
    }
    say(&format!("answer {}", String::from_utf8_lossy(&line).trim()));
    Ok(())
}

fn config(folder: Option<&Path>) -> Outcome<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(anybody);
    let mut config = match folder {
        None => config.with_no_client_auth(),
        Some(folder) => {
            let chain = CertificateDer::pem_file_iter(folder.join("tls.crt"))?;
            let key = PrivateKeyDer::from_pem_file(folder.join("tls.key"))?;
            config.with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// An attacker takes any server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
