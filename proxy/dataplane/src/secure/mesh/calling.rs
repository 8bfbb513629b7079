//! The calling side: a connection to one workload, which must prove to be that one.

use std::{sync::Arc, time::Duration};

use identity::spiffe::{Role, handshake_reason};
use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    SecureError, Speaking, WorkloadTls,
    config::{OUTGOING, Ready},
    lost::in_its_life,
    now,
};
use crate::wire::{Prefixed, Rewound, Socket};

/// Whom to call, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) kind: Speaking,
    /// The one identity that the server may show.
    pub(crate) expected: &'a SpiffeId,
    pub(crate) alpn: &'a [&'a [u8]],
    /// The server name that is asked for; HBONE asks for none.
    pub(crate) sni: Option<&'a str>,
}

/// A connection whose server is verified.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) io: Box<TlsStream<Prefixed>>,
    pub(crate) server: Server,
}

/// A server that was verified, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    expected: SpiffeId,
    /// As whom we called.
    own: SpiffeId,
    chain: Arc<[CertificateDer<'static>]>,
    not_after: i64,
    /// Of the bundles that it was verified by.
    version: u64,
}

impl WorkloadTls {
    /// Shakes hands as the client: with the workload's own certificate, towards one identity and no other.
    /// Nothing is resumed, since a server is not verified again then. A protocol that was not offered, and
    /// under HBONE none at all, is refused.
    ///
    /// # Errors
    /// [`SecureError`] with a stable name; the socket is closed.
    pub(crate) async fn connect(
        &self,
        to: Outgoing<'_>,
        io: TcpStream,
        limit: Duration,
    ) -> Result<Connected, SecureError> {
        let outcome = match self.ready_within(limit).await {
            Some(ready) => call(&ready, to, io, limit).await,
            None => Err(SecureError("no_own_certificate")),
        };
        self.count_out(outcome.as_ref().map_or_else(|error| error.0, |_| "full"));
        outcome
    }

    /// Resolves, with the reason, once a connection that this workload made must be no more: the workload
    /// has another identity or none, or the bundles no longer vouch for the server. The end of the server's
    /// certificate alone does not: it renews in time, and what is under way would be dropped for it.
    pub(crate) async fn server_lost(&self, server: &Server) -> &'static str {
        let why = self.until_lost(server).await;
        self.ended.count(why);
        why
    }

    async fn until_lost(&self, server: &Server) -> &'static str {
        let (mut own, mut trust) = (self.changed.subscribe(), self.trust.clone());
        let mut version = server.version;
        let end = u64::try_from(server.not_after).unwrap_or(0);
        loop {
            own.mark_unchanged();
            if self.identity().as_ref() != Some(&server.own) {
                return "own_identity_changed";
            }
            let bundles = Arc::clone(&trust.borrow_and_update());
            if bundles.version() != version {
                let Some((leaf, issuers)) = server.chain.split_first() else { return "no_certificate" };
                match bundles.verify(leaf, issuers, Role::Server, in_its_life(end)) {
                    Ok(peer) if peer.id == server.expected => version = bundles.version(),
                    Ok(_) => return "unexpected_identity",
                    Err(error) => return error.name(),
                }
            }
            drop(bundles);
            tokio::select! {
                _ = own.changed() => {}
                // The bundles' keeper ends with the process: then nothing changes any more.
                gone = trust.changed() => if gone.is_err() { std::future::pending().await },
            }
        }
    }
}

async fn call(
    ready: &Ready,
    to: Outgoing<'_>,
    io: TcpStream,
    limit: Duration,
) -> Result<Connected, SecureError> {
    let Outgoing { kind, expected, alpn, sni } = to;
    let own = ready.svid();
    if u64::try_from(own.not_after()).is_ok_and(|end| end < now().as_secs()) {
        return Err(SecureError("own_certificate_expired"));
    }
    let (config, own_key) = ready.calling(expected, alpn, sni.is_some()).map_err(|error| {
        tracing::error!(%error, "mTLS cannot be set up: a bug of ours");
        SecureError("tls_failed")
    })?;
    let name = match sni {
        Some(sni) => ServerName::try_from(sni.to_owned()).map_err(|_| SecureError("bad_server_name"))?,
        // Not sent, and not looked at: the server is told by its identity.
        None => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    };
    let io = Rewound::new(Socket::new(io), bytes::BytesMut::new());
    let mut io = match timeout(limit, TlsConnector::from(config).connect(name, io)).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return Err(SecureError(handshake_reason(&error))),
        Err(_) => return Err(SecureError("handshake_timeout")),
    };
    // It would take us for nobody, and our record would say otherwise.
    if !own_key.was_asked() {
        return Err(SecureError("not_asked_for_certificate"));
    }
    let session = io.get_ref().1;
    if kind == Speaking::Hbone && session.alpn_protocol() != Some(b"h2") {
        return Err(SecureError("no_common_alpn"));
    }
    let chain: Arc<[_]> = session.peer_certificates().unwrap_or_default().into();
    let leaf = chain.first().ok_or(SecureError("no_certificate"))?;
    let peer = identity::spiffe::peer_of(leaf).map_err(|error| SecureError(error.name()))?;
    // The verifier has seen to it already.
    if peer.id != *expected {
        return Err(SecureError("unexpected_identity"));
    }
    let server = Server {
        expected: peer.id,
        own: own.id().clone(),
        not_after: peer.not_after,
        version: ready.bundles().version(),
        chain,
    };
    io.get_mut().1.set_buffer_limit(Some(OUTGOING));
    Ok(Connected { io: Box::new(TlsStream::Client(io)), server })
}
