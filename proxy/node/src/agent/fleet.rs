//! Which proxy serves which pod, and which proxy has been taken over. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::protocol::{PodKey, ProxyStatus};

/// A connection of a proxy.
pub(super) type ProxyId = u64;

/// The connected proxies.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    proxies: BTreeMap<ProxyId, Proxy>,
    servers: HashMap<PodKey, ProxyId>,
}

#[derive(Debug)]
struct Proxy {
    pid: i32,
    started: u64,
    superseded: bool,
}

impl Fleet {
    /// A proxy has come; `serving` are the pods it serves already. Where two say so of one pod, the
    /// one that was started later does.
    pub(super) fn join(&mut self, id: ProxyId, pid: i32, started: u64, serving: &[PodKey]) {
        self.proxies.insert(id, Proxy { pid, started, superseded: false });
        for key in serving {
            let before = self.servers.get(key).and_then(|server| self.proxies.get(server));
            if before.is_none_or(|before| before.started <= started) {
                self.servers.insert(*key, id);
            }
        }
    }

    /// A proxy has gone.
    pub(super) fn part(&mut self, id: ProxyId) {
        self.proxies.remove(&id);
        self.servers.retain(|_, server| *server != id);
    }

    /// A pod is no longer enrolled.
    pub(super) fn forget(&mut self, key: PodKey) {
        self.servers.remove(&key);
    }

    /// A proxy's listeners of a pod are in service, in the place of any other's.
    pub(super) fn serves(&mut self, id: ProxyId, key: PodKey) {
        self.servers.insert(key, id);
    }

    /// Whether a connected proxy serves the pod.
    pub(super) fn is_served(&self, key: PodKey) -> bool {
        self.servers.contains_key(&key)
    }

    /// Whether a proxy may take pods: it is connected and nobody has taken over from it.
    pub(super) fn is_current(&self, id: ProxyId) -> bool {
        self.proxies.get(&id).is_some_and(|proxy| !proxy.superseded)
    }

    /// The proxies that are superseded from now on: all but the one that was started last, once that
    /// one serves every enrolled pod. Each is given once.
    pub(super) fn supersede(&mut self, enrolled: impl IntoIterator<Item = PodKey>) -> Vec<ProxyId> {
        let current = self.proxies.iter().filter(|(_, proxy)| !proxy.superseded);
        let Some((newest, _)) = current.max_by_key(|(id, proxy)| (proxy.started, **id)) else {
            return Vec::new();
        };
        let newest = *newest;
        if !enrolled.into_iter().all(|key| self.servers.get(&key) == Some(&newest)) {
            return Vec::new();
        }
        let mut done = Vec::new();
        for (id, proxy) in self.proxies.iter_mut().filter(|(id, proxy)| **id != newest && !proxy.superseded) {
            proxy.superseded = true;
            done.push(*id);
        }
        done
    }

    /// For `status`.
    pub(super) fn status(&self) -> Vec<ProxyStatus> {
        let serves = |id: ProxyId| self.servers.values().filter(|server| **server == id).count();
        let status = |(id, proxy): (&ProxyId, &Proxy)| ProxyStatus {
            pid: proxy.pid,
            serves: serves(*id),
            superseded: proxy.superseded,
        };
        self.proxies.iter().map(status).collect()
    }

    /// Pods that claims were made of and that are not enrolled.
    pub(super) fn keep_only(&mut self, enrolled: &BTreeSet<PodKey>) {
        self.servers.retain(|key, _| enrolled.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PodKey = PodKey { slot: 0, netns: 10 };
    const B: PodKey = PodKey { slot: 1, netns: 11 };

    #[test]
    fn the_older_proxy_is_superseded_once_the_newer_serves_every_pod() {
        let mut fleet = Fleet::default();
        fleet.join(1, 100, 5, &[]);
        fleet.serves(1, A);
        fleet.serves(1, B);
        assert!(fleet.supersede([A, B]).is_empty());
        fleet.join(2, 200, 6, &[]);
        fleet.serves(2, A);
        assert!(fleet.supersede([A, B]).is_empty());
        assert!(fleet.is_current(1));
        fleet.serves(2, B);
        assert_eq!(fleet.supersede([A, B]), [1]);
        assert!(fleet.supersede([A, B]).is_empty(), "told twice");
        assert!(!fleet.is_current(1) && fleet.is_current(2));
        fleet.part(1);
        assert!(fleet.is_served(A));
    }

    #[test]
    fn after_the_agents_restart_the_later_proxy_is_believed_whichever_comes_first() {
        for order in [[1, 2], [2, 1]] {
            let mut fleet = Fleet::default();
            for id in order {
                fleet.join(id, 0, id, &[A, B]);
            }
            assert_eq!(fleet.supersede([A, B]), [1], "{order:?}");
            let serves: Vec<usize> = fleet.status().iter().map(|proxy| proxy.serves).collect();
            assert_eq!(serves, [0, 2], "{order:?}");
        }
    }

    #[test]
    fn a_newer_proxy_that_dies_leaves_the_older_one_current() {
        let mut fleet = Fleet::default();
        fleet.join(1, 0, 1, &[A]);
        fleet.join(2, 0, 2, &[]);
        fleet.part(2);
        assert!(fleet.supersede([A]).is_empty());
        assert!(fleet.is_current(1) && fleet.is_served(A));
        fleet.part(1);
        assert!(!fleet.is_served(A) && !fleet.is_current(1));
    }

    #[test]
    fn claims_of_pods_that_are_not_enrolled_count_for_nothing() {
        let mut fleet = Fleet::default();
        fleet.join(1, 0, 1, &[A, B]);
        fleet.keep_only(&BTreeSet::from([A]));
        assert!(fleet.is_served(A) && !fleet.is_served(B));
        fleet.forget(A);
        assert!(!fleet.is_served(A));
    }
}
