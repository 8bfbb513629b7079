//! The pace of answers to bad signatures. A signature is the dearest thing a stranger can have checked: whoever
//! sends nothing but bad ones waits for the answers, so that it is its own time that the flood costs.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ahash::RandomState;
use tokio::time::Instant;

use crate::Limits;

/// Longest wait for an answer.
const LONGEST: Duration = Duration::from_secs(1);

/// So much of a second's share may be answered at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// Workloads remembered; those whose pace is idle are forgotten first.
const WORKLOADS: usize = 1024;

/// When the next answer of each workload is due (GCRA: the theoretical arrival time).
#[derive(Debug)]
pub(crate) struct Pace {
    /// Between two answers; `None`: no pace.
    interval: Option<Duration>,
    due: Mutex<HashMap<String, Instant, RandomState>>,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        let interval = Duration::from_secs(1).checked_div(limits.bad_signatures_per_second);
        Self { interval, due: Mutex::default() }
    }

    /// How long the answer to one more bad signature at this place has to wait.
    pub(crate) fn wait(&self, place: &str, now: Instant) -> Duration {
        let Some(interval) = self.interval else { return Duration::ZERO };
        // Bad signatures alone come here: the lock is not on any other request's way.
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if due.len() >= WORKLOADS && !due.contains_key(place) {
            due.retain(|_, due| *due > now);
        }
        if due.len() >= WORKLOADS && !due.contains_key(place) {
            return LONGEST;
        }
        let next = due.entry(place.to_owned()).or_insert(now);
        // Nobody waits longer than that, so nobody has to be counted further ahead.
        let turn = (*next).max(now).min(now + LONGEST + BURST);
        *next = turn + interval;
        turn.saturating_duration_since(now + BURST).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(per_second: u32) -> Pace {
        Pace::new(&Limits { bad_signatures_per_second: per_second, ..Limits::default() })
    }

    #[test]
    fn a_few_are_answered_at_once_and_a_flood_waits() {
        let (pace, now) = (pace(100), Instant::now());
        let waits: Vec<Duration> = (0..200).map(|_| pace.wait("a/b", now)).collect();
        assert!(
            waits[..=10].iter().all(Duration::is_zero),
            "a tenth of a second's share: {:?}",
            &waits[..12]
        );
        assert_eq!(waits[11], Duration::from_millis(10));
        assert_eq!(waits[60], Duration::from_millis(500));
        assert_eq!(waits[199], LONGEST, "and never longer");
    }

    #[test]
    fn the_first_never_waits_however_low_the_pace() {
        let (pace, now) = (pace(1), Instant::now());
        assert!(pace.wait("a/b", now).is_zero());
        assert_eq!(pace.wait("a/b", now), Duration::from_millis(900));
    }

    #[test]
    fn one_workloads_flood_is_not_anothers() {
        let (pace, now) = (pace(100), Instant::now());
        for _ in 0..1000 {
            let _ = pace.wait("a/b", now);
        }
        assert!(pace.wait("a/c", now).is_zero());
    }

    #[test]
    fn a_pause_ends_the_wait() {
        let (pace, now) = (pace(100), Instant::now());
        for _ in 0..1000 {
            let _ = pace.wait("a/b", now);
        }
        assert!(pace.wait("a/b", now + Duration::from_secs(2)).is_zero());
    }

    #[test]
    fn zero_is_no_pace_and_places_are_bounded() {
        let now = Instant::now();
        let none = pace(0);
        assert!((0..1000).all(|_| none.wait("a/b", now).is_zero()));
        let pace = pace(1);
        for n in 0..3 * WORKLOADS {
            let _ = pace.wait(&n.to_string(), now);
        }
        assert!(pace.due.lock().unwrap_or_else(PoisonError::into_inner).len() <= WORKLOADS);
    }
}
