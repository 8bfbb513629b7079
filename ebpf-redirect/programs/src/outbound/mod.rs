//! What the pod sends: redirected to the proxy, which learns where it was meant to go.

mod connect;
pub mod dns;
mod names;
pub mod sockops;

/// What a program that may refuse returns: the call goes on.
const ALLOW: i32 = 1;
/// The call fails with EPERM.
const REFUSE: i32 = 0;
