//! Network namespaces.

use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Error, tool};

/// Where `ip netns` keeps them.
pub(super) const FOLDER: &str = "/run/netns";

/// A named network namespace. Removed when dropped; the kernel keeps it while a process is in it.
pub struct Namespace {
    name: String,
    path: PathBuf,
    file: File,
}

impl Namespace {
    pub(super) fn new(name: &str) -> Result<Self, Error> {
        tool::run("ip", &["netns", "add", name], "")?;
        let path = Path::new(FOLDER).join(name);
        match File::open(&path) {
            Ok(file) => Ok(Self { name: name.to_owned(), path, file }),
            Err(source) => {
                remove(name);
                Err(Error::Io { doing: format!("open {}", path.display()), source })
            }
        }
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, for `capture.pods[].netns`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode number, as in `readlink /proc/self/ns/net`.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn inode(&self) -> Result<u64, Error> {
        let doing = || format!("look at {}", self.path.display());
        Ok(self.file.metadata().map_err(Error::io(doing()))?.ino())
    }

    /// Does `work` on a thread of its own inside this namespace: the sockets made there stay in it,
    /// whichever thread uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let file = self.file.as_fd();
        let inside = move || {
            move_into_link_name_space(file, Some(LinkNameSpaceType::Network))?;
            Ok::<T, rustix::io::Errno>(work())
        };
        let outcome = thread::scope(|scope| scope.spawn(inside).join());
        match outcome {
            Ok(result) => {
                result.map_err(|errno| Error::io(format!("enter {}", self.path.display()))(errno.into()))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip` with a batch of commands inside this namespace, one a line, and gives what it says.
    ///
    /// # Errors
    /// What `ip` says of the first command that fails.
    pub fn ip(&self, batch: &str) -> Result<String, Error> {
        tool::run("ip", &["-n", &self.name, "-batch", "-"], batch)
    }

    /// Writes a setting of this namespace; `name` is relative to `/proc/sys/net`.
    ///
    /// # Errors
    /// When there is none of that name, or it does not take the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), Error> {
        let path = Path::new("/proc/sys/net").join(name);
        self.run(|| fs::write(&path, value))?.map_err(Error::io(format!("write {}", path.display())))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

pub(super) fn remove(name: &str) {
    // Best effort; the next run collects what stays.
    let _ = tool::run("ip", &["netns", "del", name], "");
}
