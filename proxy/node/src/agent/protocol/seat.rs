//! The agent's end: a socket that only root and the proxy's user come through.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::net::{SocketAddrUnix, bind, listen};
use tokio::net::UnixListener;

use super::{Link, MAX_CLIENTS, MAX_ROOT_CLIENTS, link::packet_socket};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// Read and write for root and the proxy's group.
const MODE: u32 = 0o660;

/// The socket that the agent listens on. Its file goes with it.
#[derive(Debug)]
pub struct Seat {
    listener: UnixListener,
    path: PathBuf,
    user: u32,
    others: Arc<AtomicUsize>,
    root: Arc<AtomicUsize>,
}

/// Who has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub user: u32,
    /// Process id; 0 where it is in another process namespace.
    pub pid: i32,
}

/// A connection's place among the allowed number, given back when dropped.
#[derive(Debug)]
pub struct Admission(Arc<AtomicUsize>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the agent's socket {path}: {error}")]
pub struct SeatError {
    path: String,
    error: io::Error,
}

impl Seat {
    /// Makes the socket, in place of one that was left behind. The caller has made sure that no other
    /// agent serves it.
    ///
    /// # Errors
    /// [`SeatError`]
    pub fn open(path: &Path, user: u32, group: u32) -> Result<Self, SeatError> {
        Self::make(path, user, group).map_err(|error| SeatError { path: path.display().to_string(), error })
    }

    fn make(path: &Path, user: u32, group: u32) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("there is something else than a socket in its place")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket: OwnedFd = packet_socket()?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before `listen`: until then the file's mode does not matter.
        std::os::unix::fs::chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        listen(&socket, BACKLOG)?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
        let (others, root) = (Arc::default(), Arc::default());
        Ok(Self { listener, path: path.to_owned(), user, others, root })
    }

    /// The next one who may come in. Others are turned away without a word.
    ///
    /// # Errors
    /// When the listener fails; out of descriptors among others. Try again after a moment.
    pub async fn accept(&self) -> io::Result<(Link, Peer, Admission)> {
        loop {
            let (socket, _) = self.listener.accept().await?;
            let link = Link::accepted(socket);
            let Ok((user, pid)) = link.peer() else { continue };
            let peer = Peer { user, pid };
            match self.admit(peer) {
                Some(admission) => return Ok((link, peer, admission)),
                None => tracing::warn!(user, pid, "turned away at the agent's socket"),
            }
        }
    }

    fn admit(&self, peer: Peer) -> Option<Admission> {
        let (count, most) = match peer.user {
            0 => (&self.root, MAX_ROOT_CLIENTS),
            user if user == self.user => (&self.others, MAX_CLIENTS),
            _ => return None,
        };
        let admission = Admission(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(admission)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // What matters is that nobody listens; a file left behind is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}
