//! One way in one round.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ways::Way;
use super::world::{World, WorldError};
use crate::load::BUNDLE_BYTES;
use crate::peers::process::cpu_of;

/// How long a calibration takes.
const CALIBRATION: Duration = Duration::from_millis(500);
const MIB: f64 = 1024.0 * 1024.0;

/// The load that latencies are measured at.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Offered {
    /// Requests a second.
    pub requests: f64,
}

/// What was measured. CPU in microseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// Connections a second, each with one request of 1 kB, one at a time on each of eight threads.
    pub connects: f64,
    /// Milliseconds from the connect to the end of the answer: half of them kept within this.
    pub connect_p50: f64,
    /// 99 %.
    pub connect_p99: f64,
    /// CPU of all processes for each of them.
    pub connect_cpu: f64,
    /// CPU of what is between client and server.
    pub connect_between: f64,
    /// Requests a second on 32 kept connections, closed loop.
    pub rate: f64,
    /// CPU of all processes for each.
    pub request_cpu: f64,
    /// CPU of what is between client and server.
    pub request_between: f64,
    /// Milliseconds from when a request was due to its answer, at the offered load.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// MiB a second, in answers of 1 MiB on eight connections.
    pub throughput: f64,
    /// CPU of all processes for each MiB.
    pub mebibyte_cpu: f64,
}

/// How requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Pace {
    /// As fast as it goes.
    Closed,
    /// At moments fixed in advance.
    Open,
    /// A connection for each.
    Connect,
}

/// What the load says at its end, in one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// Whole answers.
    pub answered: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// What is wrong with it.
    pub complaint: Option<String>,
}

/// The line by which the load says that what counts begins.
pub const BEGIN: &str = "begin";
/// The line by which it says that it has ended.
pub const END: &str = "end";

struct Loaded {
    said: Said,
    all: f64,
    between: f64,
}

/// The way's closed loop: requests a second.
///
/// # Errors
/// [`WorldError`]; also when one answer was not the expected one.
pub fn calibrate(world: &mut World, way: Way) -> Result<f64, WorldError> {
    let loaded = load(world, way, Pace::Closed, PATIENT, 32, 0.0, CALIBRATION)?;
    Ok(per_second(&loaded))
}

/// The whole cell.
///
/// # Errors
/// As [`calibrate`].
pub fn cell(world: &mut World, way: Way, offered: Offered, span: Duration) -> Result<Cell, WorldError> {
    let connect = load(world, way, Pace::Connect, PATIENT, 8, 0.0, span)?;
    let closed = load(world, way, Pace::Closed, PATIENT, 32, 0.0, span)?;
    let open = load(world, way, Pace::Open, PATIENT, 32, offered.requests, span)?;
    let down = load(world, way, Pace::Closed, BUNDLE, 8, 0.0, span)?;
    #[allow(clippy::cast_precision_loss)]
    let mebibytes = BUNDLE_BYTES as f64 / MIB;
    Ok(Cell {
        connects: per_second(&connect),
        connect_p50: connect.said.p50,
        connect_p99: connect.said.p99,
        connect_cpu: connect.all,
        connect_between: connect.between,
        rate: per_second(&closed),
        request_cpu: closed.all,
        request_between: closed.between,
        p50: open.said.p50,
        p99: open.said.p99,
        throughput: per_second(&down) * mebibytes,
        mebibyte_cpu: down.all / mebibytes,
    })
}

/// Connections alone, for so long.
///
/// # Errors
/// As [`calibrate`].
pub fn connects(world: &mut World, way: Way, span: Duration) -> Result<(), WorldError> {
    load(world, way, Pace::Connect, PATIENT, 8, 0.0, span).map(drop)
}

const PATIENT: &str = "/fhir/Patient/p1";
const BUNDLE: &str = "/fhir/Bundle/b1";

fn load(
    world: &World,
    way: Way,
    pace: Pace,
    path: &str,
    connections: usize,
    rate: f64,
    span: Duration,
) -> Result<Loaded, WorldError> {
    let request = world.file("request");
    fs::write(&request, world.request(way, path)?)?;
    let pace_name = match pace {
        Pace::Closed => "closed",
        Pace::Open => "open",
        Pace::Connect => "connect",
    };
    let words = [
        "--request",
        &request,
        "--pace",
        pace_name,
        "--connections",
        &connections.to_string(),
        "--rate",
        &rate.to_string(),
        "--seconds",
        &span.as_secs_f64().to_string(),
    ]
    .map(str::to_owned);
    let mut child = world.load(way, &words)?;
    let found = watch(world, way, &mut child);
    if found.is_err() {
        let _ = child.kill();
    }
    child.wait()?;
    let (said, [all, between]) = found?;
    if let Some(complaint) = said.complaint {
        return Err(WorldError::Wrong(complaint));
    }
    if way != Way::Direct && pace == Pace::Closed && between.is_zero() {
        return Err(WorldError::Wrong("nothing was between client and server".to_owned()));
    }
    #[allow(clippy::cast_precision_loss)]
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / said.answered.max(1) as f64;
    Ok(Loaded { all: each(all), between: each(between), said })
}

/// CPU of all processes, and of those between, from `begin` to `end`.
fn watch(world: &World, way: Way, child: &mut Child) -> Result<(Said, [Duration; 2]), WorldError> {
    let id = child.id();
    let output = child.stdout.take().ok_or_else(|| WorldError::Wrong("no output".to_owned()))?;
    let mut lines = BufReader::new(output).lines();
    let mut next =
        || lines.next().transpose()?.ok_or_else(|| WorldError::Wrong("the load ended too soon".to_owned()));
    let mark = |line: String, wanted: &str| {
        if line != wanted {
            return Err(WorldError::Wrong(format!("the load says {line:?}")));
        }
        let between = world.between(way)?;
        Ok([between + world.server_cpu(way)? + cpu_of(id)?, between])
    };
    let from = mark(next()?, BEGIN)?;
    let to = mark(next()?, END)?;
    let said: Said = serde_json::from_str(&next()?).map_err(|error| WorldError::Wrong(error.to_string()))?;
    let [all, between] = [0, 1].map(|index: usize| {
        let at = |marks: &[Duration; 2]| marks.get(index).copied().unwrap_or_default();
        at(&to).saturating_sub(at(&from))
    });
    Ok((said, [all, between]))
}

fn per_second(loaded: &Loaded) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let answered = loaded.said.answered as f64;
    answered / loaded.said.seconds
}
