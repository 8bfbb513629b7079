//! What can go wrong, in words an operator can act on.

use std::{io, path::PathBuf};

/// Why the kernel's side cannot be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The pin root is not in a BPF file system.
    #[error("{} is not in a BPF file system: mount -t bpf bpf {}", path.display(), path.display())]
    NotBpffs {
        /// The pin root of the settings.
        path: PathBuf,
    },
    /// Another agent holds the pins.
    #[error("another agent works with the pins in {}: stop it first", path.display())]
    Taken {
        /// The pin root of the settings.
        path: PathBuf,
    },
    /// The pins are of another version of the programs' maps.
    #[error(
        "the pins in {} are of ABI version {found}, this agent's is {wanted}: un-enrol with the agent that made them, \
         or remove that folder while no pod is enrolled",
        path.display()
    )]
    Version {
        /// Folder of the pins.
        path: PathBuf,
        /// Version found.
        found: String,
        /// Version of this build.
        wanted: u32,
    },
    /// The agent would let out whatever process is in no cgroup of its own.
    #[error(
        "the agent is in the root cgroup, as any process of the node may be: run it in a cgroup of its own"
    )]
    RootCgroup,
    /// No pod has this slot, or its network namespace is not known yet: enrol it first.
    #[error("no pod is enrolled in slot {0}")]
    NotEnrolled(u32),
    /// The object or a program was refused.
    #[error("cannot {doing}: {reason}")]
    Bpf {
        /// What was being done.
        doing: String,
        /// The kernel's or aya's words, the verifier's log among them.
        reason: String,
    },
    /// A file, socket or system call.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LoadError {
    pub(crate) fn bpf(doing: impl Into<String>, reason: &dyn std::error::Error) -> Self {
        let mut text = reason.to_string();
        let mut cause = reason.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self::Bpf { doing: doing.into(), reason: text }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Why a pod could not be enrolled, and what state it was left in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The facts do not allow it; nothing was changed.
    #[error("{0}; nothing was changed")]
    Refused(String),
    /// Every slot is taken; nothing was changed.
    #[error("all {0} slots are taken; nothing was changed")]
    Full(u32),
    /// A step failed; everything was undone and the pod is as it was before.
    #[error("{0}; undone: the pod is as it was, its traffic is NOT captured")]
    Undone(LoadError),
    /// The pod was whole before and is so still, with the programs it had; it could not be renewed.
    #[error("{error}; kept: the pod stays enrolled with the programs it had")]
    Kept {
        /// What failed.
        error: LoadError,
    },
    /// A step failed and undoing, or mending, failed too: the pod is partly enrolled and cannot open
    /// or receive connections until `enrol` or `unenrol` succeeds.
    #[error(
        "{error}; not whole: the pod's connections are refused until it is enrolled or un-enrolled again"
    )]
    Closed {
        /// What failed.
        error: LoadError,
    },
}
