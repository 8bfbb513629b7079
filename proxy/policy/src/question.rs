//! The question put to the policies: plain facts, borrowed from whoever has them.

use std::net::IpAddr;

use http::HeaderMap;

use crate::{RequestIdentity, SpiffeId};

/// Everything that a policy may look at. Without `request` the question is about a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub source: Source<'a>,
    /// What is asked for.
    pub destination: Destination<'a>,
    /// The HTTP request; `None` for raw TCP.
    pub request: Option<RequestFacts<'a>>,
}

/// The caller.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Direct peer (`source.ip`, `ipBlocks`).
    pub ip: IpAddr,
    /// Original client (`remote.ip`, `remoteIpBlocks`): from X-Forwarded-For where trusted, else `ip`.
    pub remote_ip: IpAddr,
    /// Verified peer identity (mTLS), if any.
    pub identity: Option<&'a SpiffeId>,
}

/// The workload's side of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The workload's address (`destination.ip`).
    pub ip: IpAddr,
    /// Container port (`destination.port`, `ports`).
    pub port: u16,
    /// TLS server name (`connection.sni`).
    pub sni: Option<&'a str>,
}

/// The HTTP request, after normalisation.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Method, as sent (case matters).
    pub method: &'a str,
    /// `:authority` / Host, as sent.
    pub host: &'a str,
    /// Canonical path without query and fragment.
    pub path: &'a str,
    /// Headers after the identify room's edits.
    pub headers: &'a HeaderMap,
    /// The verified token's claims, if a token was verified.
    pub identity: Option<&'a RequestIdentity>,
}
