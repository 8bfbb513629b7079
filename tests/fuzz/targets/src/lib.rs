//! What the fuzz targets do, without the fuzzer. Each takes any bytes, runs the code that the proxy runs,
//! and panics where a property does not hold.
//!
//! | target | property |
//! |---|---|
//! | [`request_target`] | one canonical form; strictness only refuses; what was judged is what is sent |
//! | [`manifest`] | every refusal has its place; what compiles decides and explains itself alike |
//! | [`jwks`] | no shared secret, private, weak or encryption key is ever usable |
//! | [`jwt`] | accepted means signed |
//! | [`header_values`] | the answer is one, however it is asked; what policies deny does not pass |
//! | [`request_head`] | HTTP/1: framed, read, judged and forwarded are the same requests |
//! | [`h2_frames`] | HTTP/2: no stream goes upstream unjudged |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod h2_frames;
mod header_values;
mod input;
mod jwks;
mod jwt;
mod manifest;
mod request_head;
mod request_target;
#[cfg(test)]
mod tests;
mod upstream;
mod wire;
mod world;

use std::sync::LazyLock;

use tokio::runtime::Runtime;

pub use h2_frames::h2_frames;
pub use header_values::header_values;
pub use jwks::jwks;
pub use jwt::jwt;
pub use manifest::manifest;
pub use request_head::request_head;
pub use request_target::request_target;

/// One thread for everything: what happens depends on the bytes alone.
fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    });
    &RUNTIME
}
