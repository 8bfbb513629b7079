//! What the kernel says of this process (proc_pid_status(5)).

use crate::settings::User;

/// The part of `/proc/self/status` that tells of rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Real user id.
    pub uid: u32,
    /// Real, effective, saved and file system user id.
    pub uids: Vec<u32>,
    /// The same of groups.
    pub gids: Vec<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Threads.
    pub threads: u64,
    /// Capability sets by name (`CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`).
    pub capabilities: Vec<(String, u64)>,
    /// No program run from here gains rights.
    pub no_new_privs: bool,
    /// 2: system calls are filtered.
    pub seccomp: u32,
}

/// `/proc/self/status` cannot be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("/proc/self/status: {0}")]
pub struct StatusError(String);

impl ProcessStatus {
    /// This process's.
    ///
    /// # Errors
    /// [`StatusError`]: no `/proc`, or a line that says something else than it did for years.
    pub fn read() -> Result<Self, StatusError> {
        let text = std::fs::read_to_string("/proc/self/status");
        Self::parse(&text.map_err(|error| StatusError(error.to_string()))?)
    }

    fn parse(text: &str) -> Result<Self, StatusError> {
        let mut status = Self::default();
        let mut seen = 0;
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let bad = || StatusError(format!("`{name}:{value}`"));
            let number = || value.trim().parse::<u64>().map_err(|_| bad());
            let numbers = || {
                let ids = value.split_whitespace().map(|id| id.parse::<u32>().map_err(|_| bad()));
                ids.collect::<Result<Vec<_>, _>>()
            };
            match name {
                "Uid" => status.uids = numbers()?,
                "Gid" => status.gids = numbers()?,
                "Groups" => status.groups = numbers()?,
                "Threads" => status.threads = number()?,
                "NoNewPrivs" => status.no_new_privs = number()? == 1,
                "Seccomp" => status.seccomp = u32::try_from(number()?).map_err(|_| bad())?,
                "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                    let set = u64::from_str_radix(value.trim(), 16).map_err(|_| bad())?;
                    status.capabilities.push((name.to_owned(), set));
                }
                _ => continue,
            }
            seen += 1;
        }
        if seen != 11 {
            return Err(StatusError(format!("{seen} of 11 lines that tell of rights are there")));
        }
        status.uid = *status.uids.first().ok_or_else(|| StatusError("no user".to_owned()))?;
        Ok(status)
    }

    /// The rights that are left although they should not be, each in words. The bounding set can be
    /// emptied by root alone; without it, and with no_new_privs, it gives nothing to anyone.
    pub(super) fn left_of(&self, user: User, was_root: bool) -> Vec<String> {
        let mut left = Vec::new();
        if self.uids.iter().any(|uid| *uid != user.uid || *uid == 0) {
            left.push(format!("users {:?}", self.uids));
        }
        if was_root && (self.gids.iter().any(|gid| *gid != user.gid) || !self.groups.is_empty()) {
            left.push(format!("groups {:?} and {:?}", self.gids, self.groups));
        }
        for (name, set) in &self.capabilities {
            if *set != 0 && (was_root || name != "CapBnd") {
                left.push(format!("{name} {set:#x}"));
            }
        }
        if !self.no_new_privs {
            left.push("new privileges".to_owned());
        }
        if self.seccomp != 2 {
            left.push("unfiltered system calls".to_owned());
        }
        left
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const USER: User = User { uid: 7, gid: 8 };
    const CONFINED: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t\nThreads:\t1\n\
        CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t0\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn left(from: &str, to: &str, was_root: bool) -> Vec<String> {
        let text = CONFINED.replace(from, to);
        assert!(from.is_empty() || text != CONFINED, "{from}");
        ProcessStatus::parse(&text).unwrap().left_of(USER, was_root)
    }

    #[test]
    fn nothing_is_left_of_a_confined_process() {
        assert!(left("", "", true).is_empty());
    }

    #[test]
    fn each_right_that_is_left_is_told() {
        let cases = [
            ("Uid:\t7\t7\t7", "Uid:\t7\t7\t0", "users"),
            ("Gid:\t8\t8", "Gid:\t8\t0", "groups"),
            ("Groups:\t", "Groups:\t0 4", "groups"),
            ("CapInh:\t0", "CapInh:\t1", "CapInh 0x1"),
            ("CapPrm:\t0", "CapPrm:\t20", "CapPrm 0x20"),
            ("CapEff:\t0", "CapEff:\t1ffffffffff", "CapEff"),
            ("CapBnd:\t0", "CapBnd:\t1000", "CapBnd"),
            ("CapAmb:\t0", "CapAmb:\t1", "CapAmb"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "new privileges"),
            ("Seccomp:\t2", "Seccomp:\t0", "unfiltered"),
        ];
        for (from, to, word) in cases {
            let left = left(from, to, true);
            assert!(left.len() == 1 && left[0].contains(word), "{to}: {left:?}");
        }
    }

    #[test]
    fn a_bounding_set_without_root_is_no_right() {
        assert!(left("CapBnd:\t0", "CapBnd:\t1ffffffffff", false).is_empty());
    }

    #[test]
    fn a_status_that_says_less_is_an_error() {
        for line in ["CapEff:\t0\n", "Seccomp:\t2\n", "Uid:\t7\t7\t7\t7\n"] {
            assert!(ProcessStatus::parse(&CONFINED.replace(line, "")).is_err(), "{line}");
        }
        assert!(ProcessStatus::parse(&CONFINED.replace("CapEff:\t0", "CapEff:\tx")).is_err());
        assert_ne!(ProcessStatus::read().unwrap().threads, 0);
    }
}
