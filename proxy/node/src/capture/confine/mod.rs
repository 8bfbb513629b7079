//! Confinement of the node's proxy, which reads what strangers send: another user than root, no
//! capability, no way to gain one, and only the system calls that it needs.
//!
//! All of it happens before the first thread is started, so that no thread is left outside.

mod rights;
mod status;
mod syscalls;

use std::io;

use crate::settings::User;

pub use status::{ProcessStatus, StatusError};

/// Why the proxy does not start: it would have had rights that it must not have.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Threads started before would have kept their rights.
    #[error("{0} threads run already: rights can be dropped only before the second one starts")]
    Threads(u64),
    /// A step was refused by the kernel.
    #[error("rights cannot be dropped: {step}: {error}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The process runs as somebody whom the agent does not admit.
    #[error("this process is user {is}, but `capture.user` is {wanted}: start it as that user or as root")]
    User {
        /// Its user id.
        is: u32,
        /// The settings'.
        wanted: User,
    },
    /// Something is left that should have gone.
    #[error("rights are left after they were dropped: {0}")]
    Left(String),
    /// The state of the process cannot be read.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The filter of system calls cannot be built or installed.
    #[error("the filter of system calls: {0}")]
    Filter(String),
}

/// Becomes `user` (when started as root), gives up every capability and every way to get one, and
/// lets through only the system calls of a proxy; all others fail with `EPERM`. What is true
/// afterwards is read back from the kernel rather than believed.
///
/// # Errors
/// [`ConfineError`]: the process must end; it may hold some rights still.
pub fn confine(user: User) -> Result<(), ConfineError> {
    let before = ProcessStatus::read()?;
    if before.threads != 1 {
        return Err(ConfineError::Threads(before.threads));
    }
    if before.uid == 0 {
        rights::become_user(user)?;
    } else if before.uid != user.uid {
        return Err(ConfineError::User { is: before.uid, wanted: user });
    }
    rights::raise_file_limit();
    rights::give_up()?;
    syscalls::install()?;
    let left = ProcessStatus::read()?.left_of(user, before.uid == 0);
    if left.is_empty() { Ok(()) } else { Err(ConfineError::Left(left.join(", "))) }
}

fn step<T>(step: &'static str, result: rustix::io::Result<T>) -> Result<T, ConfineError> {
    result.map_err(|error| ConfineError::Step { step, error: error.into() })
}
