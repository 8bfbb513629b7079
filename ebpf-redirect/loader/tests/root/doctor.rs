//! `doctor` on a node that has all.

use std::fs;

use loader::{
    cgroup_root,
    doctor::{Probe, probe},
};

use super::bed::on_a_node;

#[test]
fn this_node_has_all_and_nothing_is_left() {
    on_a_node("doctor::this_node_has_all_and_nothing_is_left", |bed| {
        // The kernel puts files of its own there.
        let listed =
            || fs::read_dir(bed.bpffs()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = listed();
        for check in probe(&Probe { bpffs: bed.bpffs(), cgroup_root: None }) {
            assert!(check.ok, "{check:?}");
        }
        assert_eq!(listed(), before);
        let scratch = format!("fhirward-doctor-{}", std::process::id());
        assert!(!cgroup_root().unwrap().join(scratch).exists());
    });
}
