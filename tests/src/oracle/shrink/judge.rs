//! Asks the proxies themselves whether they still disagree.

use std::mem::discriminant;

use super::{Still, Subject};
use crate::oracle::differences;
use crate::oracle::model::{Signed, World};
use crate::oracle::pair::{Error, Pair};
use crate::oracle::run::{Disagreement, disagreement, unexplained};
use crate::oracle::view::Delta;

/// Tries candidates on both proxies, which are started anew for other worlds.
pub struct Judge<'a> {
    signed: &'a Signed<'a>,
    /// What of the disagreement is to stay.
    wanted: Delta,
    /// What becomes of a world before ours sees it: itself, but in the test of this.
    ours: fn(&World) -> World,
    running: Option<(Vec<World>, Pair)>,
}

impl<'a> Judge<'a> {
    /// For a disagreement; the first of its deltas is what counts.
    #[must_use]
    pub const fn new(wanted: Delta, signed: &'a Signed<'a>, ours: fn(&World) -> World) -> Self {
        Self { signed, wanted, ours, running: None }
    }

    /// What the proxies do now, in full.
    ///
    /// # Errors
    /// When they cannot be started or asked.
    pub async fn look(&mut self, (world, request): &Subject) -> Result<Disagreement, Error> {
        let (worlds, pair) = self.running_for(std::slice::from_ref(world)).await?;
        let index = worlds.iter().position(|known| known == world).unwrap_or(0);
        let mut lane = pair.lane(index);
        let (envoy, ours) = lane.ask(request, self.signed).await?;
        Ok(disagreement(world, request, envoy, ours))
    }

    async fn running_for(&mut self, worlds: &[World]) -> Result<&(Vec<World>, Pair), Error> {
        let fits = |(known, _): &(Vec<World>, Pair)| worlds.iter().all(|world| known.contains(world));
        let running = match self.running.take().filter(fits) {
            Some(running) => running,
            None => {
                let ours: Vec<World> = worlds.iter().map(self.ours).collect();
                (worlds.to_vec(), Pair::start_unequal(worlds, &ours, self.signed).await?)
            }
        };
        Ok(self.running.insert(running))
    }

    fn keeps(&self, found: &Disagreement) -> bool {
        let mut table: Vec<_> = differences::all().into_iter().map(|entry| (entry, 0)).collect();
        unexplained(found, &mut table).iter().any(|delta| match (delta, &self.wanted) {
            (Delta::Verdict(..), Delta::Verdict(..)) => *delta == self.wanted,
            (Delta::Header(name, ..), Delta::Header(wanted, ..))
            | (Delta::AnswerHeader(name, ..), Delta::AnswerHeader(wanted, ..)) => name == wanted,
            (delta, wanted) => discriminant(delta) == discriminant(wanted),
        })
    }
}

impl Still for Judge<'_> {
    async fn still(&mut self, candidates: &[Subject]) -> Result<Vec<bool>, Error> {
        let mut worlds: Vec<World> = Vec::new();
        for (world, _) in candidates {
            if !worlds.contains(world) {
                worlds.push(world.clone());
            }
        }
        self.running_for(&worlds).await?;
        let mut kept = Vec::new();
        for subject in candidates {
            let found = self.look(subject).await?;
            kept.push(self.keeps(&found));
        }
        Ok(kept)
    }
}
