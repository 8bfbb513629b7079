//! Requests under way, counted against their limits; a permit lasts until the response's end.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use policy::WorkloadName;

use crate::{Limits, limits::Exceeded};

/// Most answers that wait at once, whole proxy.
const WAITING: usize = 1024;

/// Counts of the whole proxy and of each workload.
#[derive(Debug)]
pub(crate) struct Gauges {
    connections: Gauge,
    requests: Gauge,
    /// Answers that wait for their turn ([`super::Pace`]).
    waiting: Gauge,
    per_workload: usize,
    workloads: ArcSwap<HashMap<WorkloadName, Gauge, ahash::RandomState>>,
}

/// How many there are of something.
#[derive(Debug, Clone)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(0)))
    }

    /// One more; `None`: that would be more than `most`.
    pub(crate) fn enter(&self, most: usize) -> Option<Permit> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.0));
        (before < most).then_some(permit)
    }
}

/// One that is counted, until dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gauges {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            connections: Gauge::new(),
            requests: Gauge::new(),
            waiting: Gauge::new(),
            per_workload: limits.requests_per_workload,
            workloads: ArcSwap::default(),
        }
    }

    /// A connection; `None`: too many.
    pub(crate) fn connection(&self, limits: &Limits) -> Option<Permit> {
        self.connections.enter(limits.connections)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.0.load(Ordering::Relaxed)
    }

    /// A request of the whole proxy.
    pub(crate) fn request(&self, limits: &Limits) -> Result<Permit, Exceeded> {
        self.requests.enter(limits.requests).ok_or(Exceeded::Requests)
    }

    /// An answer that waits for its turn. It no longer counts as a request, or those who flood would take the
    /// places of others; `None`: too many wait already, and this one goes out at once.
    pub(crate) fn waiting(&self) -> Option<Permit> {
        self.waiting.enter(WAITING)
    }

    /// A request of one workload.
    pub(crate) fn of_workload(&self, name: &WorkloadName) -> Result<Permit, Exceeded> {
        let known = self.workloads.load().get(name).cloned();
        let gauge = known.unwrap_or_else(|| self.add(name));
        gauge.enter(self.per_workload).ok_or(Exceeded::RequestsPerWorkload)
    }

    /// First request of a workload; those that nobody uses are forgotten on the way, so that the
    /// table is no longer than the mesh is large.
    fn add(&self, name: &WorkloadName) -> Gauge {
        let fresh = Gauge::new();
        self.workloads.rcu(|workloads| {
            let mut workloads = HashMap::clone(workloads);
            if workloads.len() >= 1024 {
                workloads.retain(|_, gauge| gauge.0.load(Ordering::Relaxed) > 0);
            }
            workloads.entry(name.clone()).or_insert_with(|| fresh.clone());
            workloads
        });
        self.workloads.load().get(name).cloned().unwrap_or(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_wait_and_no_more() {
        let gauges = Gauges::new(&Limits::default());
        let mut waiting: Vec<_> = (0..WAITING).map_while(|_| gauges.waiting()).collect();
        assert_eq!((waiting.len(), gauges.waiting().is_none()), (WAITING, true));
        waiting.pop();
        assert!(gauges.waiting().is_some());
    }
}
