//! What runs inside the pods of the capture benchmark: a server, or the load.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bench::capture::measure::{BEGIN, END, Pace, Said};
use bench::load::http1::Responses;
use bench::load::{Documents, Lane, Pacing, Protocol, Reactor, Requests, Schedule};
use clap::Parser;
use hdrhistogram::Histogram;
use rustix::net::sockopt::set_socket_linger;

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(250);
/// How long a server runs at most: it is killed with its pod.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest latency that is told apart, nanoseconds.
const LONGEST: u64 = 60_000_000_000;
const SCRATCH: usize = 64 * 1024;

/// A process of the capture benchmark.
#[derive(Parser)]
enum Verb {
    /// The FHIR server of the benchmark.
    Serve {
        /// Where it listens.
        address: SocketAddr,
    },
    /// The load.
    Load(Load),
}

#[derive(clap::Args)]
struct Load {
    #[arg(long)]
    target: SocketAddr,
    /// The file with one whole request.
    #[arg(long)]
    request: PathBuf,
    #[arg(long, value_enum)]
    pace: Pace,
    /// Connections at once.
    #[arg(long)]
    connections: usize,
    /// Requests a second, where the pace is open.
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let outcome = match Verb::parse() {
        Verb::Serve { address } => serve(address),
        Verb::Load(load) => load.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "capture-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: SocketAddr) -> Result<(), Failure> {
    Ok(Reactor::listening(address, Documents::new("{}"))?.serve_for(LIFE)?)
}

impl Load {
    fn run(&self) -> Result<(), Failure> {
        let request: Arc<[u8]> = fs::read(&self.request)?.into();
        let span = Duration::from_secs_f64(self.seconds);
        let said = if self.pace == Pace::Connect {
            self.connects(&request, WARM_UP)?;
            say(BEGIN)?;
            self.connects(&request, span)?
        } else {
            let mut reactor = Reactor::new(0, Documents::new("{}"))?;
            self.requests(&mut reactor, &request, Pacing::Closed, WARM_UP)?;
            let pacing = match self.pace {
                Pace::Open => Pacing::Open(Arc::new(Schedule::poisson(self.rate, span, 5))),
                _ => Pacing::Closed,
            };
            say(BEGIN)?;
            self.requests(&mut reactor, &request, pacing, span)?
        };
        say(END)?;
        Ok(say(&serde_json::to_string(&said)?)?)
    }

    fn requests(
        &self,
        reactor: &mut Reactor,
        request: &Arc<[u8]>,
        pacing: Pacing,
        span: Duration,
    ) -> Result<Said, Failure> {
        let lane = Lane {
            target: self.target,
            protocol: Protocol::Http1,
            tls: None,
            connections: self.connections,
            streams: 1,
            pacing,
            requests: Requests::Same(Arc::clone(request)),
            expect: 200,
        };
        let report = reactor.run(vec![lane], span, Vec::new())?.pop().ok_or("no report")?;
        Ok(Said {
            answered: report.answered,
            seconds: report.elapsed.as_secs_f64(),
            p50: report.percentile(50.0),
            p99: report.percentile(99.0),
            complaint: report.complaint(),
        })
    }

    /// A connection for each request, one at a time on each thread.
    fn connects(&self, request: &[u8], span: Duration) -> Result<Said, Failure> {
        let began = Instant::now();
        let run = || -> Result<Histogram<u64>, Failure> {
            let mut latency = Histogram::new_with_bounds(1, LONGEST, 3)?;
            let mut scratch = vec![0; SCRATCH];
            while began.elapsed() < span {
                let due = Instant::now();
                once(self.target, request, &mut scratch)?;
                latency.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap_or(LONGEST));
            }
            Ok(latency)
        };
        let found: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let seconds = began.elapsed().as_secs_f64();
        let mut latency: Histogram<u64> = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let mut complaint = None;
        for one in found {
            match one.map_err(|_| "a thread has died")? {
                Ok(part) => latency.add(part)?,
                Err(error) => complaint = Some(error.to_string()),
            }
        }
        #[allow(clippy::cast_precision_loss)]
        let at = |part: f64| latency.value_at_quantile(part) as f64 / 1e6;
        Ok(Said { answered: latency.len(), seconds, p50: at(0.5), p99: at(0.99), complaint })
    }
}

/// Connects, asks, reads the answer, and resets, so that no port waits for two minutes.
fn once(target: SocketAddr, request: &[u8], scratch: &mut [u8]) -> Result<(), Failure> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(request)?;
    let mut responses = Responses::default();
    loop {
        let read = stream.read(scratch)?;
        if read == 0 {
            return Err("connection closed before the answer".into());
        }
        if let Some(answer) = responses.feed(scratch.get(..read).unwrap_or_default())? {
            return if answer.status == 200 {
                Ok(())
            } else {
                Err(format!("answer {}", answer.status).into())
            };
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
