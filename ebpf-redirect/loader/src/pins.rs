//! The folders in the BPF file system.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, statfs};

use crate::{LoadError, Slot, sys};

/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS: u64 = 0xcafe_4a11;

/// `<bpffs>/fhirward`, locked for as long as this is there.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    _lock: File,
}

impl Pins {
    /// Makes the folders that are not there yet.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, LoadError> {
        if !is_bpffs(bpffs) {
            return Err(LoadError::NotBpffs { path: bpffs.to_path_buf() });
        }
        let root = bpffs.join("fhirward");
        let made = |folder: &Path| {
            fs::create_dir_all(folder).map_err(LoadError::io(format!("make the folder {}", folder.display())))
        };
        made(&root)?;
        let lock = File::open(&root).map_err(LoadError::io(format!("open {}", root.display())))?;
        flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| LoadError::Taken { path: root.clone() })?;
        check_version(&root)?;
        made(&root.join(version_folder()))?;
        made(&root.join("maps"))?;
        made(&root.join("links"))?;
        Ok(Self { root, _lock: lock })
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Folder of a pod's links.
    pub(crate) fn links(&self, slot: Slot) -> PathBuf {
        self.root.join("links").join(slot.to_string())
    }

    /// Slots that have a folder.
    pub(crate) fn slots(&self) -> io::Result<Vec<Slot>> {
        let names = names(&self.root.join("links"))?;
        Ok(names.iter().filter_map(|name| Slot::new(name.parse().ok()?)).collect())
    }

    /// Names of the pod's pins; none without a folder.
    pub(crate) fn link_names(&self, slot: Slot) -> io::Result<Vec<String>> {
        match names(&self.links(slot)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Detaches a program at once and removes its pin; done already is done.
    pub(crate) fn remove_link(&self, slot: Slot, name: &str) -> io::Result<()> {
        let path = self.links(slot).join(name);
        match sys::pinned(&path, 0) {
            Ok(link) => match sys::link_detach(link.as_fd()) {
                Ok(()) => {}
                // What it was attached to is gone, or it was detached before its pin was removed.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOLINK | libc::ENOENT | libc::EINVAL)) => {}
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the pod's folder, which has to be empty; done already is done.
    pub(crate) fn remove_folder(&self, slot: Slot) -> io::Result<()> {
        match fs::remove_dir(self.links(slot)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all folders and maps; there must be no links left. The version goes last: until then the
    /// next agent knows what the rest is.
    pub(crate) fn remove(self) -> io::Result<()> {
        for map in names(&self.maps())? {
            fs::remove_file(self.map(&map))?;
        }
        for folder in ["maps".to_owned(), "links".to_owned(), version_folder()] {
            fs::remove_dir(self.root.join(folder))?;
        }
        fs::remove_dir(&self.root)
    }
}

fn version_folder() -> String {
    format!("version_{}", abi::VERSION)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether a folder lies in a BPF file system.
pub(crate) fn is_bpffs(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| found.f_type.cast_unsigned() == BPF_FS)
}

/// Pins of another version hold maps of other shapes: they are told, never adopted.
fn check_version(root: &Path) -> Result<(), LoadError> {
    let names = names(root).map_err(LoadError::io(format!("read {}", root.display())))?;
    let wanted = abi::VERSION;
    let other = names
        .iter()
        .filter_map(|name| name.strip_prefix("version_"))
        .find(|found| *found != wanted.to_string());
    match other {
        Some(found) => Err(LoadError::Version { path: root.to_path_buf(), found: found.to_owned(), wanted }),
        None => Ok(()),
    }
}
