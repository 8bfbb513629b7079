//! The one loop that makes the load and serves the upstream.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::client::{Client, Lost};
use super::lane::{Lane, Pacing, Report};
use super::upstream::{Documents, Turn, Upstream};

/// How long answers are waited for after the last request was due.
const DRAIN: Duration = Duration::from_secs(10);
/// A lane with so many failures is given up at once.
const MOST_FAILURES: u64 = 200;
/// Nearer than this to the next arrival the loop looks again instead of sleeping: timers are late.
const SPIN: Duration = Duration::from_micros(150);
/// Sockets looked at between two looks at the clock.
const EVENTS: usize = 32;
const SCRATCH: usize = 256 * 1024;

const LISTENER: u64 = u64::MAX;
/// Set in the number of a client's connection, not in that of the upstream's.
const CLIENT: u64 = 1 << 62;

/// Why a load cannot be made at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Sockets.
    #[error("load: {0}")]
    Io(#[from] io::Error),
    /// The histogram's bounds, which are fixed.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// Something to do at a moment of a run, briefly: the loop waits for it. It is told how many answers the
/// first lane has had. Those whose moment has not come when a run ends early act then.
pub type Hook<'a> = (Duration, Box<dyn FnMut(u64) + 'a>);

/// The loop and the upstream within it.
pub struct Reactor {
    epoll: OwnedFd,
    upstream: Upstream,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
}

/// A lane at work.
struct Running {
    lane: Lane,
    /// Connections with room for a request, once for each; longest free first.
    free: VecDeque<usize>,
    next_due: usize,
    under_way: u64,
    failures: u64,
    exhausted: bool,
    report: Report,
}

struct Run {
    lanes: Vec<Running>,
    clients: Vec<(usize, Option<Client>)>,
    start: Instant,
    /// No closed lane sends after this.
    end: Instant,
}

impl Reactor {
    /// A loop whose upstream listens on this loopback port; 0: any.
    ///
    /// # Errors
    /// When the port is taken, or the kernel gives no event queue.
    pub fn new(port: u16, documents: Documents) -> io::Result<Self> {
        Self::listening((Ipv4Addr::LOCALHOST, port).into(), documents)
    }

    /// A loop whose upstream listens on this address.
    ///
    /// # Errors
    /// As [`Reactor::new`].
    pub fn listening(address: SocketAddr, documents: Documents) -> io::Result<Self> {
        let upstream = Upstream::bind(address, documents)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &upstream.listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self { epoll, upstream, scratch: vec![0; SCRATCH], events: Vec::with_capacity(EVENTS) })
    }

    /// Where the upstream listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn upstream(&self) -> io::Result<SocketAddr> {
        self.upstream.address()
    }

    /// Requests that have reached the upstream so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.upstream.served
    }

    /// Serves the upstream alone for so long.
    ///
    /// # Errors
    /// When the event queue fails.
    pub fn serve_for(&mut self, span: Duration) -> Result<(), LoadError> {
        self.run(Vec::new(), span, Vec::new()).map(drop)
    }

    /// Makes all lanes' load at once for `span`, then waits for the answers that are due.
    /// Ends early when every lane has run out of requests.
    ///
    /// # Errors
    /// When the event queue fails; whatever goes wrong with requests stands in the reports.
    pub fn run(
        &mut self,
        lanes: Vec<Lane>,
        span: Duration,
        mut hooks: Vec<Hook<'_>>,
    ) -> Result<Vec<Report>, LoadError> {
        hooks.sort_by_key(|(at, _)| *at);
        let mut hooks = VecDeque::from(hooks);
        let mut run = Run::new(lanes, span)?;
        self.connect(&mut run)?;
        run.restart(span);
        self.first_requests(&mut run)?;
        loop {
            let now = Instant::now();
            while hooks.front().is_some_and(|(at, _)| run.start + *at <= now) {
                if let Some((_, mut act)) = hooks.pop_front() {
                    act(run.answered());
                }
            }
            self.send_due(&mut run, now)?;
            if run.is_over(now, hooks.is_empty()) {
                break;
            }
            let hook = hooks.front().map(|(at, _)| run.start + *at);
            self.wait(run.nap(Instant::now(), hook))?;
            self.handle(&mut run)?;
        }
        for (_, mut act) in hooks {
            act(run.answered());
        }
        Ok(run.reports())
    }

    fn connect(&mut self, run: &mut Run) -> Result<(), LoadError> {
        for index in 0..run.clients.len() {
            self.reconnect(run, index)?;
        }
        Ok(())
    }

    fn reconnect(&mut self, run: &mut Run, index: usize) -> Result<(), LoadError> {
        let Some((lane, place)) = run.clients.get_mut(index) else { return Ok(()) };
        let Some(running) = run.lanes.get_mut(*lane) else { return Ok(()) };
        match Client::connect(&running.lane) {
            Ok(client) => {
                let data = epoll::EventData::new_u64(CLIENT | index as u64);
                epoll::add(&self.epoll, &client.stream, data, epoll::EventFlags::IN)
                    .map_err(io::Error::from)?;
                *place = Some(client);
                running.free.extend(std::iter::repeat_n(index, running.lane.streams));
            }
            Err(error) => {
                *place = None;
                running.failures += 1;
                running.report.fail(&format!("no connection: {error}"), 1);
            }
        }
        Ok(())
    }

    fn first_requests(&mut self, run: &mut Run) -> Result<(), LoadError> {
        for index in 0..run.lanes.len() {
            let Some(running) = run.lanes.get_mut(index) else { continue };
            if matches!(running.lane.pacing, Pacing::Closed | Pacing::Once) {
                for slot in std::mem::take(&mut running.free) {
                    run.prepare(slot, Instant::now());
                    self.flush(run, slot)?;
                }
            }
        }
        Ok(())
    }

    fn send_due(&mut self, run: &mut Run, now: Instant) -> Result<(), LoadError> {
        for index in 0..run.lanes.len() {
            while let Some(running) = run.lanes.get_mut(index)
                && let Some(due) = running.next(run.start)
                && due <= now
                && let Some(slot) = running.free.pop_front()
            {
                running.next_due += 1;
                run.prepare(slot, due);
                self.flush(run, slot)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, nap: Duration) -> Result<(), LoadError> {
        self.events.clear();
        let timeout = Timespec::try_from(nap).unwrap_or_default();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn handle(&mut self, run: &mut Run) -> Result<(), LoadError> {
        for position in 0..self.events.len() {
            let Some(event) = self.events.get(position) else { break };
            match event.data.u64() {
                LISTENER => self.accept()?,
                number if number & CLIENT != 0 => {
                    let index = usize::try_from(number & !CLIENT).unwrap_or(usize::MAX);
                    self.client(run, index)?;
                }
                number => self.upstream_turn(usize::try_from(number).unwrap_or(usize::MAX))?,
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), LoadError> {
        while let Some((index, stream)) = self.upstream.accept()? {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, stream, data, epoll::EventFlags::IN).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn upstream_turn(&mut self, index: usize) -> Result<(), LoadError> {
        let flags = match self.upstream.turn(index, &mut self.scratch) {
            Turn::Gone => return Ok(()),
            Turn::Read => epoll::EventFlags::IN,
            Turn::Write => epoll::EventFlags::OUT,
        };
        // Answers are mostly written whole at once: watching for room is the exception.
        if self.upstream.watch_writing(index, flags == epoll::EventFlags::OUT)
            && let Some(stream) = self.upstream.stream(index)
        {
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, stream, data, flags).map_err(io::Error::from)?;
        }
        Ok(())
    }

    fn client(&mut self, run: &mut Run, index: usize) -> Result<(), LoadError> {
        let Some((lane, place)) = run.clients.get_mut(index) else { return Ok(()) };
        let (Some(client), Some(running)) = (place.as_mut(), run.lanes.get_mut(*lane)) else { return Ok(()) };
        let (mut answers, expect) = (0, running.lane.expect);
        let now = Instant::now();
        let report = &mut running.report;
        let outcome = client.read(&mut self.scratch, |status, due| {
            answers += 1;
            report.answer(status, expect, due, now);
        });
        running.under_way = running.under_way.saturating_sub(answers);
        if answers > 0 {
            running.report.elapsed = now - run.start;
        }
        match outcome {
            Ok(true) => {
                let again = matches!(running.lane.pacing, Pacing::Closed) && now < run.end;
                for _ in 0..answers {
                    if again {
                        run.prepare(index, now);
                    } else {
                        run.release(index);
                    }
                }
                self.flush(run, index)
            }
            Ok(false) => self.replace(run, index, None),
            Err(Lost(why)) => self.replace(run, index, Some(&why)),
        }
    }

    /// Gives up a connection and makes a new one in its place, which a closed lane puts to use at once.
    fn replace(&mut self, run: &mut Run, index: usize, why: Option<&str>) -> Result<(), LoadError> {
        let Some((lane, place)) = run.clients.get_mut(index) else { return Ok(()) };
        let (Some(client), Some(running)) = (place.take(), run.lanes.get_mut(*lane)) else { return Ok(()) };
        let lost = client.under_way();
        drop(client);
        running.under_way = running.under_way.saturating_sub(lost);
        running.free.retain(|slot| *slot != index);
        if let Some(why) = why.filter(|_| lost > 0) {
            running.failures += lost;
            running.report.fail(why, lost);
        }
        if running.failures > MOST_FAILURES {
            running.exhausted = true;
            return Ok(());
        }
        self.reconnect(run, index)?;
        let Some((lane, _)) = run.clients.get(index) else { return Ok(()) };
        let Some(running) = run.lanes.get_mut(*lane) else { return Ok(()) };
        let now = Instant::now();
        if matches!(running.lane.pacing, Pacing::Closed) && now < run.end {
            let slots = running.free.iter().filter(|slot| **slot == index).count();
            running.free.retain(|slot| *slot != index);
            for _ in 0..slots {
                run.prepare(index, now);
            }
            self.flush(run, index)?;
        }
        Ok(())
    }

    fn flush(&mut self, run: &mut Run, index: usize) -> Result<(), LoadError> {
        let Some((_, Some(client))) = run.clients.get_mut(index) else { return Ok(()) };
        match client.flush() {
            Ok(all) => {
                if client.watches_writing == all {
                    client.watches_writing = !all;
                    let writing = if all { epoll::EventFlags::empty() } else { epoll::EventFlags::OUT };
                    let data = epoll::EventData::new_u64(CLIENT | index as u64);
                    epoll::modify(&self.epoll, &client.stream, data, epoll::EventFlags::IN | writing)
                        .map_err(io::Error::from)?;
                }
                Ok(())
            }
            Err(Lost(why)) => self.replace(run, index, Some(&why)),
        }
    }
}

impl Running {
    /// When the next request of an open lane is due.
    fn next(&self, start: Instant) -> Option<Instant> {
        match &self.lane.pacing {
            Pacing::Open(schedule) if !self.exhausted => {
                schedule.due(self.next_due).map(|offset| start + offset)
            }
            _ => None,
        }
    }

    /// Nothing more will be sent, and nothing is waited for.
    fn is_done(&self, start: Instant) -> bool {
        self.under_way == 0 && (self.exhausted || self.next(start).is_none())
    }
}

impl Run {
    fn new(lanes: Vec<Lane>, span: Duration) -> Result<Self, LoadError> {
        let now = Instant::now();
        let mut run = Self { lanes: Vec::new(), clients: Vec::new(), start: now, end: now + span };
        for (index, lane) in lanes.into_iter().enumerate() {
            run.clients.extend((0..lane.connections).map(|_| (index, None)));
            let report = Report::new()?;
            run.lanes.push(Running {
                lane,
                free: VecDeque::new(),
                next_due: 0,
                under_way: 0,
                failures: 0,
                exhausted: false,
                report,
            });
        }
        Ok(run)
    }

    /// The clock starts once every connection is made.
    fn restart(&mut self, span: Duration) {
        self.start = Instant::now();
        self.end = self.start + span;
    }

    /// Puts a request on a connection that has room for it.
    fn prepare(&mut self, slot: usize, due: Instant) {
        let Some((lane, Some(client))) = self.clients.get_mut(slot) else { return };
        let Some(running) = self.lanes.get_mut(*lane) else { return };
        if client.prepare(&mut running.lane.requests, due) {
            running.under_way += 1;
        } else {
            running.exhausted = true;
        }
    }

    fn answered(&self) -> u64 {
        self.lanes.first().map_or(0, |running| running.report.answered)
    }

    fn release(&mut self, slot: usize) {
        let Some((lane, _)) = self.clients.get(slot) else { return };
        if let Some(running) = self.lanes.get_mut(*lane) {
            running.free.push_back(slot);
        }
    }

    fn is_over(&self, now: Instant, no_hooks: bool) -> bool {
        if now >= self.end + DRAIN {
            return true;
        }
        let done = self.lanes.iter().all(|running| running.is_done(self.start));
        let early = self.lanes.iter().any(|running| running.exhausted)
            && self
                .lanes
                .iter()
                .all(|running| running.exhausted || matches!(running.lane.pacing, Pacing::Once));
        done && (early || (now >= self.end && no_hooks))
    }

    /// How long the loop may sleep when no socket has news.
    fn nap(&self, now: Instant, hook: Option<Instant>) -> Duration {
        let due = self.lanes.iter().filter(|running| !running.free.is_empty());
        let due = due.filter_map(|running| running.next(self.start)).min();
        let until = |moment: Instant| moment.saturating_duration_since(now);
        let end = if now < self.end { self.end } else { self.end + DRAIN };
        let rest = until(end).min(hook.map_or(Duration::MAX, until));
        rest.min(due.map_or(Duration::MAX, |due| until(due).saturating_sub(SPIN)))
    }

    fn reports(self) -> Vec<Report> {
        let finish = |mut running: Running| {
            if running.under_way > 0 {
                running.report.fail("no answer in time", running.under_way);
            }
            if let Pacing::Open(schedule) = &running.lane.pacing {
                running.report.unsent = schedule.len().saturating_sub(running.next_due) as u64;
            }
            running.report
        };
        self.lanes.into_iter().map(finish).collect()
    }
}
