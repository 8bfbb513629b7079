//! The agent's hands in the kernel: BPF programs, maps and pins, enrolment of pods, and sockets
//! inside pods. The only crate that knows aya.
//!
//! ```text
//! <bpffs>/fhirward/version_<abi>             what the pins below belong to
//! <bpffs>/fhirward/maps/<MAP>                shared by every pod's programs
//! <bpffs>/fhirward/links/<slot>/<link>       one per program and pod; without its pin a program is detached
//! ```
//!
//! The kernel holds all state, so that the agent may be killed at any instant: `PODS` says which
//! slot belongs to which pod *before* the first link is made and *after* the last is gone, and every
//! function here can be begun again where it was cut off. From its first guard on a pod that is not
//! whole opens no connection, and it is never told to be whole.
//!
//! [`proxy`] is the other process' part: map lookups by file descriptor, without any privilege.

mod cgroup;
mod error;
mod kernel;
mod maps;
mod netlink;
mod netns;
mod object;
mod pins;
mod sockets;
mod sys;
mod wire;

pub mod doctor;
pub mod proxy;

pub use abi::{Counter, DnsPorts};
pub use cgroup::{cgroup_id, cgroup_root, own_cgroup};
pub use error::{EnrolError, LoadError};
pub use kernel::{Adopted, Collected, Enrolled, Kernel, Listeners, PodFacts, ProxyMaps, Settings, Slot};
pub use netns::{Interface, Netns};
pub use sockets::{Family, SocketKind, local_port};
