//! Confinement, tried in processes of its own: what must be refused is, what a proxy needs is not.
//!
//! Without root the part that root starts is left out, and said to be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod forbidden;
mod needed;

use std::process::{Command, ExitCode};

use fhirward::{
    capture::confine::{ConfineError, ProcessStatus, confine},
    settings::User,
};

/// Which part a child process plays.
const PART: &str = "FHIRWARD_CONFINE_TEST";
const USER: User = User { uid: 65_532, gid: 65_533 };

fn main() -> ExitCode {
    if let Ok(part) = std::env::var(PART) {
        play(&part);
        return ExitCode::SUCCESS;
    }
    // As `cargo test -- --list` asks of every target.
    if std::env::args().any(|argument| argument == "--list") {
        println!("confine: test");
        return ExitCode::SUCCESS;
    }
    let root = rustix::process::geteuid().is_root();
    let mut parts = vec!["threads", "own", "other"];
    if root {
        parts.push("root");
    } else {
        println!("not root: how root gives up its rights is left out");
    }
    let failed: Vec<_> = parts.into_iter().filter(|part| !passes(part)).collect();
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(part: &str) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let passed = child.env(PART, part).status().unwrap().success();
    println!("confine: {part} ... {}", if passed { "ok" } else { "FAILED" });
    passed
}

fn play(part: &str) {
    match part {
        "root" => from_root(),
        "own" => from_a_user(),
        "other" => other_users_are_told(),
        "threads" => threads_are_refused(),
        other => panic!("no part {other}"),
    }
}

/// Root becomes the user, and nothing is left of root.
fn from_root() {
    let map = forbidden::make_map();
    let folder = needed::folder(USER);
    confine(USER).unwrap();
    let status = ProcessStatus::read().unwrap();
    assert_eq!(
        (status.uids.as_slice(), status.gids.as_slice()),
        ([USER.uid; 4].as_slice(), [USER.gid; 4].as_slice())
    );
    assert!(status.groups.is_empty() && status.no_new_privs && status.seccomp == 2, "{status:?}");
    assert_eq!(status.capabilities.len(), 5);
    assert!(status.capabilities.iter().all(|(_, set)| *set == 0), "{status:?}");
    forbidden::root_is_gone();
    forbidden::calls_are_refused();
    forbidden::maps_are_looked_up_and_not_made(&map);
    needed::all(folder.path());
    // Threads started since are confined too.
    std::thread::spawn(forbidden::calls_are_refused).join().unwrap();
}

/// The user itself (root was never there) gives up what it could have got.
fn from_a_user() {
    let (user, folder) = if rustix::process::geteuid().is_root() {
        let folder = needed::folder(USER);
        let (uid, gid) = (rustix::process::Uid::from_raw(USER.uid), rustix::process::Gid::from_raw(USER.gid));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        (USER, folder)
    } else {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let user = User { uid, gid };
        (user, needed::folder(user))
    };
    confine(user).unwrap();
    forbidden::calls_are_refused();
    needed::all(folder.path());
}

fn other_users_are_told() {
    if rustix::process::geteuid().is_root() {
        let other = rustix::process::Uid::from_raw(USER.uid - 1);
        rustix::thread::set_thread_res_uid(other, other, other).unwrap();
    }
    let wanted = User { uid: rustix::process::geteuid().as_raw() + 1, gid: 1 };
    let error = confine(wanted).unwrap_err();
    assert!(
        matches!(error, ConfineError::User { .. }) && error.to_string().contains("capture.user"),
        "{error}"
    );
}

/// A thread that runs already would keep its rights.
fn threads_are_refused() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let error = confine(USER).unwrap_err();
    assert!(matches!(error, ConfineError::Threads(2)), "{error}");
    assert_eq!(ProcessStatus::read().unwrap().seccomp, 0, "nothing was done");
    drop(stop);
    let _ = thread.join();
}
