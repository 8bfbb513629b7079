//! User, groups, capabilities, file limit.

use rustix::{
    process::{Gid, Resource, Rlimit, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

use super::{ConfineError, step};

/// File descriptors that the proxy asks for when root starts it: two for each of many captured
/// connections, and the stocks.
const FILES: u64 = 1_048_576;

/// From root to `user`; capabilities go with it (capabilities(7), "Effect of user ID changes").
pub(super) fn become_user(user: super::User) -> Result<(), ConfineError> {
    drop_bounding_set()?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // Only while root: a later setrlimit cannot raise the hard limit. A refusal costs capacity alone.
    let raised = Rlimit { current: Some(FILES), maximum: Some(FILES) };
    if rustix::process::getrlimit(Resource::Nofile).maximum.is_some_and(|most| most < FILES) {
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    step("setgroups", rustix::thread::set_thread_groups(&[]))?;
    step("setresgid", rustix::thread::set_thread_res_gid(gid, gid, gid))?;
    step("setresuid", rustix::thread::set_thread_res_uid(uid, uid, uid))
}

/// Capabilities that no program started from here could have again, whatever its file says.
fn drop_bounding_set() -> Result<(), ConfineError> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // One past the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) if number > 0 => return Ok(()),
            result => step("PR_CAPBSET_DROP", result)?,
        }
    }
    Ok(())
}

/// As many files as the hard limit allows; less costs capacity alone.
pub(super) fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// No capability, and no program run from here gains any right.
pub(super) fn give_up() -> Result<(), ConfineError> {
    step("PR_CAP_AMBIENT_CLEAR_ALL", rustix::thread::clear_ambient_capability_set())?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("capset", rustix::thread::set_capabilities(None, none))?;
    step("PR_SET_NO_NEW_PRIVS", rustix::thread::set_no_new_privs(true))
}
