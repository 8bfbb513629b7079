//! The comparison itself.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt as _};

use super::dice::Dice;
use super::differences::{self, Case, Difference};
use super::generate::{self, Clock};
use super::model::{Request, Ring, Signed, World};
use super::pair::{Error, Pair};
use super::view::{Delta, Verdict, View, deltas};

/// Worlds that are asked at the same time.
const AT_ONCE: usize = 4;
/// Requests per world: enough to find what its rules hide, few enough that many worlds are seen.
const PER_WORLD: usize = 100;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The same seed gives the same worlds and requests.
    pub seed: u64,
    /// How many requests, at least.
    pub requests: usize,
}

/// A request on which the proxies differ in a way that no entry of the table accounts for.
#[derive(Debug, Clone)]
pub struct Disagreement {
    /// The world.
    pub world: World,
    /// The request.
    pub request: Request,
    /// What Envoy did.
    pub envoy: View,
    /// What we did.
    pub ours: View,
    /// In what they differ.
    pub deltas: Vec<Delta>,
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Requests compared.
    pub compared: usize,
    /// Requests that both forwarded.
    pub forwarded: usize,
    /// Requests that both answered with 403 and Envoy's words for it.
    pub denied: usize,
    /// Requests that both answered with 401.
    pub unauthenticated: usize,
    /// The table, and how often each entry accounted for something.
    pub hits: Vec<(Difference, usize)>,
    /// What no entry accounts for.
    pub disagreements: Vec<Disagreement>,
    /// Answers of ours that changed when the token was known.
    pub changed_by_cache: Vec<Disagreement>,
}

impl Findings {
    fn new() -> Self {
        Self { hits: differences::all().into_iter().map(|entry| (entry, 0)).collect(), ..Self::default() }
    }

    fn add(&mut self, disagreement: Disagreement) {
        self.compared += 1;
        match (disagreement.envoy.verdict(), disagreement.ours.verdict()) {
            (Verdict::Forwarded, Verdict::Forwarded) => self.forwarded += 1,
            (Verdict::Status(403), Verdict::Status(403)) => self.denied += 1,
            (Verdict::Status(401), Verdict::Status(401)) => self.unauthenticated += 1,
            _ => {}
        }
        let left = unexplained(&disagreement, &mut self.hits);
        if !left.is_empty() {
            self.disagreements.push(Disagreement { deltas: left, ..disagreement });
        }
    }
}

/// The deltas that no entry of the table accounts for; entries that do are counted.
pub fn unexplained(found: &Disagreement, table: &mut [(Difference, usize)]) -> Vec<Delta> {
    let Disagreement { world, request, envoy, ours, .. } = found;
    let case = Case { world, request, envoy, ours };
    let mut left = Vec::new();
    for delta in &found.deltas {
        match table.iter_mut().find(|(entry, _)| entry.explains(&case, delta)) {
            Some((_, hits)) => *hits += 1,
            None => left.push(delta.clone()),
        }
    }
    left
}

/// Asks both proxies the same requests in the same worlds.
///
/// # Errors
/// When a proxy cannot be started or is gone.
pub async fn run(options: Options) -> Result<Findings, Error> {
    let dice = Dice::new(options.seed);
    let count = options.requests.div_ceil(PER_WORLD).max(1);
    let part = |index| dice.part(u64::try_from(index).unwrap_or(0));
    let worlds: Vec<World> = (0..count).map(|index| generate::world(&mut part(index), index)).collect();
    let ring = Ring::generate();
    let signed = Signed::new(&ring);
    let pair = Pair::start(&worlds, &signed).await?;
    let findings = Mutex::new(Findings::new());
    let outcomes: Vec<Result<(), Error>> = stream::iter(worlds.iter().enumerate())
        .map(|(index, world)| {
            let (pair, signed, findings) = (&pair, &signed, &findings);
            let dice = part(index + count);
            async move { visit(pair, index, world, dice, signed, findings).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    outcomes.into_iter().collect::<Result<Vec<()>, Error>>()?;
    Ok(findings.into_inner().unwrap_or_else(PoisonError::into_inner))
}

async fn visit(
    pair: &Pair,
    index: usize,
    world: &World,
    mut dice: Dice,
    signed: &Signed<'_>,
    findings: &Mutex<Findings>,
) -> Result<(), Error> {
    let (mut lane, clock) = (pair.lane(index), clock());
    for _ in 0..PER_WORLD {
        let request = generate::request(&mut dice, world, clock);
        let (envoy, ours) = lane.ask(&request, signed).await?;
        let found = disagreement(world, &request, envoy, ours);
        let again = if request.tokens().next().is_some() && dice.percent(20) {
            let again = lane.ask_ours(&request, signed).await?;
            Some(disagreement(world, &request, found.ours.clone(), again))
        } else {
            None
        };
        let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.add(found);
        let changed = again.filter(|again| !unexplained(again, &mut differences_uncounted()).is_empty());
        findings.changed_by_cache.extend(changed);
    }
    Ok(())
}

fn differences_uncounted() -> Vec<(Difference, usize)> {
    differences::all().into_iter().map(|entry| (entry, 0)).collect()
}

/// Both outcomes, compared.
#[must_use]
pub fn disagreement(world: &World, request: &Request, envoy: View, ours: View) -> Disagreement {
    let deltas = deltas(&envoy, &ours);
    Disagreement { world: world.clone(), request: request.clone(), envoy, ours, deltas }
}

/// The time by which tokens are made.
#[must_use]
pub fn clock() -> Clock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
