//! Sessions that a workload's clients may resume.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use rustls::server::StoresServerSessions;

type Kept = VecDeque<(Vec<u8>, Vec<u8>)>;

/// The newest sessions. rustls's own store takes 30 KiB before there is one; a node has a store for each of
/// its workloads, most of which have few clients. So this one grows, and is searched from its newest end.
pub(super) struct Sessions {
    kept: Mutex<Kept>,
    most: usize,
}

impl Sessions {
    /// At most so many; the oldest makes room.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Secrets: not even their number is told.
impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.with(|kept| {
            remove(kept, &key);
            while kept.len() >= self.most.max(1) {
                kept.pop_front();
            }
            kept.push_back((key, value));
        });
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.with(|kept| kept.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.clone()))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.with(|kept| remove(kept, key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

fn remove(kept: &mut Kept, key: &[u8]) -> Option<Vec<u8>> {
    let at = kept.iter().rposition(|(own, _)| own == key)?;
    kept.remove(at).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Vec<u8> {
        vec![number; 32]
    }

    #[test]
    fn a_session_is_found_until_it_is_taken_or_the_oldest_of_too_many() {
        let sessions = Sessions::new(3);
        assert_eq!(sessions.get(&key(1)), None);
        for number in 1..=3 {
            assert!(sessions.put(key(number), vec![number]));
        }
        assert_eq!(sessions.get(&key(1)), Some(vec![1]));
        // Used once.
        assert_eq!(sessions.take(&key(2)), Some(vec![2]));
        assert_eq!((sessions.take(&key(2)), sessions.get(&key(2))), (None, None));
        // There is room for one; the next takes the oldest's place.
        sessions.put(key(4), vec![4]);
        assert_eq!(sessions.get(&key(1)), Some(vec![1]));
        sessions.put(key(5), vec![5]);
        let found = [1, 2, 3, 4, 5].map(|number| sessions.get(&key(number)).is_some());
        assert_eq!(found, [false, false, true, true, true]);
    }

    #[test]
    fn a_session_put_anew_replaces_the_one_before_and_no_other() {
        let sessions = Sessions::new(2);
        sessions.put(key(1), vec![1]);
        sessions.put(key(2), vec![2]);
        sessions.put(key(1), vec![9]);
        assert_eq!((sessions.get(&key(1)), sessions.get(&key(2))), (Some(vec![9]), Some(vec![2])));
        assert_eq!(sessions.take(&key(1)), Some(vec![9]));
        assert_eq!(sessions.take(&key(1)), None);
    }

    #[test]
    fn nothing_is_taken_before_there_is_a_session_and_debug_tells_no_secret() {
        let sessions = Sessions::new(256);
        assert_eq!(sessions.with(|kept| kept.capacity()), 0);
        sessions.put(key(7), b"secret".to_vec());
        assert_eq!(format!("{sessions:?}"), "Sessions { .. }");
    }
}
