//! What every cell is made of: a peer that answers, a closed loop with what it costs, arrivals fixed in advance.

use std::cell::Cell as Slot;
use std::time::{Duration, Instant};

use crate::cell::{Cell, CellError, Latency};
use crate::load::{Hook, Lane, Reactor, Report};
use crate::peers::Peer;
use crate::peers::process::{Memory, Process};

/// How long a peer may take to answer rightly for the first time.
const START_LIMIT: Duration = Duration::from_secs(90);
const BETWEEN_PROBES: Duration = Duration::from_millis(10);
/// How long a closed loop runs before what it does counts.
const LEAD: Duration = Duration::from_millis(300);
/// No closed loop is made longer than this because nothing could be measured in a shorter one.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(20);

/// What a peer has done and used up to a moment.
#[derive(Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: Duration,
    answered: u64,
    memory: Memory,
}

impl Mark {
    fn now(process: &Process, answered: u64) -> std::io::Result<Self> {
        let (at, cpu) = (Instant::now(), process.cpu()?);
        Ok(Self { at, cpu, answered, memory: process.memory()? })
    }

    /// What lies between two; nothing where one cannot be told from the other.
    #[allow(clippy::cast_precision_loss)]
    fn since(&self, from: &Self) -> Option<Cell> {
        let answered = self.answered.checked_sub(from.answered)? as f64;
        let (cpu, seconds) =
            ((self.cpu.checked_sub(from.cpu)?).as_secs_f64(), (self.at - from.at).as_secs_f64());
        let Memory { rss, pss } = self.memory;
        let cell =
            Cell { per_cpu_second: answered / cpu, rate: answered / seconds, rss, pss, ..Cell::default() };
        (cpu > 0.0 && answered > 0.0).then_some(cell)
    }
}

/// Asks until the peer answers as it should.
pub(crate) fn until_up(
    reactor: &mut Reactor,
    peer: Peer,
    process: &mut Process,
    lane: &Lane,
) -> Result<(), CellError> {
    let started = Instant::now();
    loop {
        let reports = reactor.run(vec![lane.clone()], Duration::ZERO, Vec::new())?;
        let Some(complaint) = reports.first().and_then(Report::complaint) else { return Ok(()) };
        if let Some(told) = process.ended() {
            return Err(CellError::Wrong(format!("{} {told}", peer.name())));
        }
        if started.elapsed() > START_LIMIT {
            let tail = process.tail();
            return Err(CellError::Wrong(format!("{} is not ready: {complaint}\n{tail}", peer.name())));
        }
        reactor.serve_for(BETWEEN_PROBES)?;
    }
}

/// Runs lanes, and accepts nothing but the expected answers, each from where it must come from.
pub(crate) fn checked(
    reactor: &mut Reactor,
    lanes: Vec<Lane>,
    span: Duration,
    hooks: Vec<Hook<'_>>,
) -> Result<Vec<Report>, CellError> {
    let permitted: Vec<bool> = lanes.iter().map(|lane| lane.expect < 400).collect();
    let served = reactor.served();
    let reports = reactor.run(lanes, span, hooks)?;
    if let Some(complaint) = reports.iter().find_map(Report::complaint) {
        return Err(CellError::Wrong(complaint));
    }
    let served = reactor.served() - served;
    let due: u64 = reports.iter().zip(permitted).filter(|(_, yes)| *yes).map(|(one, _)| one.answered).sum();
    if served != due {
        return Err(CellError::Wrong(format!("{due} permitted, and {served} reached the upstream")));
    }
    Ok(reports)
}

/// As fast as it goes, with what it costs. On a machine so busy that the peer did not get a tick of CPU it
/// is tried again for longer, up to `longest`.
pub(crate) fn closed(
    reactor: &mut Reactor,
    process: &Process,
    lanes: &[Lane],
    mut span: Duration,
    longest: Duration,
) -> Result<Cell, CellError> {
    loop {
        match window(reactor, process, lanes, span)? {
            Some(cell) => return Ok(cell),
            None if span < longest => span *= 2,
            None => return Err(CellError::Wrong("the run was too short to be measured".to_owned())),
        }
    }
}

/// One closed loop; nothing where the peer did nothing that could be measured.
fn window(
    reactor: &mut Reactor,
    process: &Process,
    lanes: &[Lane],
    span: Duration,
) -> Result<Option<Cell>, CellError> {
    // What it costs to connect, and the last answers, stay outside of the window.
    let marks = [Slot::new(None), Slot::new(None)];
    let mark = |slot: &Slot<Option<Mark>>, answered| slot.set(Mark::now(process, answered).ok());
    let hooks: Vec<Hook<'_>> = vec![
        (LEAD, Box::new(|answered| mark(&marks[0], answered))),
        (LEAD + span, Box::new(|answered| mark(&marks[1], answered))),
    ];
    checked(reactor, lanes.to_vec(), LEAD + span, hooks)?;
    let [Some(from), Some(to)] = marks.map(Slot::into_inner) else {
        return Err(CellError::Wrong("the peer was gone before the end".to_owned()));
    };
    Ok(to.since(&from))
}

/// The first lane's latency at the offered load, beside the others.
pub(crate) fn open(
    reactor: &mut Reactor,
    lanes: Vec<Lane>,
    offered: f64,
    span: Duration,
    hooks: Vec<Hook<'_>>,
) -> Result<Latency, CellError> {
    let reports = checked(reactor, lanes, span, hooks)?;
    let report = reports.first().ok_or_else(|| CellError::Wrong("no report".to_owned()))?;
    Ok(Latency {
        offered,
        p50: report.percentile(50.0),
        p99: report.percentile(99.0),
        p999: report.percentile(99.9),
        longest: report.longest(),
    })
}
