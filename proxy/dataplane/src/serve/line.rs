//! A client connection as its requests see it.

use std::sync::Arc;

use super::link::Link;
use crate::accept::Connection;

/// Shared by the requests of one connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) connection: Connection,
    pub(crate) link: Arc<Link>,
}
