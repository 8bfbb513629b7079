//! A client connection as its requests see it.

use std::sync::{Arc, Mutex, PoisonError};

use super::{lasting::Watch, link::Link, story::Story};
use crate::{accept::Connection, forward::Upstream};
use bytes::Bytes;

/// Shared by the requests of one connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) connection: Connection,
    pub(crate) link: Arc<Link>,
    tunnel: Mutex<Option<Tunnel>>,
}

/// What an accepted upgrade leaves to the connection: once its 101 is out, it carries bytes.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) upstream: Upstream,
    /// What the upstream sent behind its head.
    pub(super) first: Bytes,
    pub(super) story: Story,
    /// Says when it is permitted no longer.
    pub(super) watch: Option<Watch>,
}

impl Line {
    pub(super) fn new(connection: Connection, link: Arc<Link>) -> Self {
        Self { connection, link, tunnel: Mutex::default() }
    }

    pub(super) fn set_tunnel(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        self.link.upgrade();
    }

    pub(super) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
