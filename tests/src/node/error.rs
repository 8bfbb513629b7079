//! Why a step of a test of capture could not be taken.

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a step of a test of capture could not be taken.
#[derive(thiserror::Error)]
pub enum Error {
    /// Pods.
    #[error(transparent)]
    Pods(#[from] demo::pods::Error),
    /// Files, sockets, processes.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A program said or did something else than was waited for.
    #[error("{name}: {what}; it said:\n{said}")]
    Program {
        /// The program.
        name: String,
        /// What was wrong.
        what: String,
        /// Its output so far.
        said: String,
    },
    /// Something was not there in time.
    #[error("{0}")]
    Late(String),
}

/// As it reads: what programs said is many lines, and tests unwrap.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
