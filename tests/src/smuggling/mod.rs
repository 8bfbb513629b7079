//! The request-smuggling corpus: cases in files, and what stands around the proxy to judge them.
//!
//! | part | does |
//! |---|---|
//! | [`corpus`] | reads the case files of `tests/smuggling` |
//! | [`client`] | sends the bytes of a case, and reads the answers |
//! | [`h2`] | the same over HTTP/2, in frames written by hand |
//! | [`upstream`] | keeps every byte that reaches it, by connection |
//! | [`reading`] | reads those bytes, strictly and in every sloppy way that servers are known for |
//!
//! Sources: RFC 9112 sections 2.2, 3, 5, 6, 7 and 11.2; RFC 9113 sections 8.1 to 8.3 and 10.3.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod client;
pub mod corpus;
pub mod h2;
pub mod reading;
pub mod upstream;
