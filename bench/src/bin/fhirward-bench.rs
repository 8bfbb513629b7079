//! The peers side by side. `cargo xtask bench` builds and provisions, then runs this.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::capture::world::Files;
use bench::capture::{self, Section};
use bench::load::{Documents, Reactor};
use bench::machine::Machine;
use bench::mtls;
use bench::peers::process::free_address;
use bench::peers::{Peer, Programs, World};
use bench::reach;
use bench::report;
use bench::rounds::{self, Extent, Row};
use bench::tokens::{TOKENS, Tokens};
use bench::workloads::{ALL, Workload};
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::json;

/// What `--quick` looks at: every goal, and what differs most.
const QUICK: &[&str] = &["read", "fresh", "h2", "down", "up", "policies", "flood", "reload"];

/// The name of the rows with pods, for `--only`.
const CAPTURE: &str = "capture";

/// That of the rows over mTLS.
const MTLS: &str = "mtls";
/// Beyond this many workloads loopback's addresses would have to be counted otherwise.
const MOST_CERTIFICATES: usize = 10_000;
/// Who takes part in them.
const MTLS_PEERS: [Peer; 2] = [Peer::Envoy, Peer::Fhirward];

/// Fhirward and its peers side by side: requests per CPU-second, latency at equal load, memory.
#[derive(Parser)]
#[command(name = "fhirward-bench")]
struct Arguments {
    /// Fewer workloads and rounds, shorter phases: about five minutes, for a first look.
    #[arg(long)]
    quick: bool,
    /// Only these workloads; `mtls` is mTLS of the mesh, `capture` is with pods and needs root.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Peer>,
    /// Rounds; 5, or 3 with --quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each phase; 2, or 0.5 with --quick.
    #[arg(long)]
    seconds: Option<f64>,
    /// Write the figures as JSON into this folder.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The Envoy binary.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The HAProxy binary.
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// The folder with fhir-gateway's server.jar and lib.
    #[arg(long)]
    fhir_gateway: Option<PathBuf>,
    /// Where `fhirward` lies, if not beside this program: to compare two builds.
    #[arg(long)]
    ours: Option<PathBuf>,
    /// Tokens of each algorithm; fewer are signed sooner, and end workloads with fresh tokens sooner.
    #[arg(long, default_value_t = TOKENS)]
    tokens: usize,
    /// Workloads whose certificates are kept in memory at once, in `mtls`.
    #[arg(long, default_value_t = 1000)]
    certificates: usize,
    /// Where tokens and the peers' files are kept.
    #[arg(long, default_value = "target/bench")]
    work: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every row that was asked for has figures.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let workloads = chosen(arguments)?;
    let programs = programs(arguments)?;
    let work = std::path::absolute(&arguments.work)?;
    let cores = cores()?;
    let [load_core, peer_core] = [cores.first(), cores.last()].map(|core| core.copied().unwrap_or(0));
    let mut world = world(&work, arguments.tokens.max(3), programs, peer_core)?;
    let mut reactor =
        Reactor::new(world.tokens.provider.port, Documents::new(&world.tokens.provider.realm()))?;
    world.upstream = reactor.upstream()?;
    pin(load_core)?;

    let machine = Machine::look(&world.programs, cores.len());
    say(&format!("{}\n", machine.line()))?;
    if load_core == peer_core {
        say("ONE CORE: peers and generator share it; only requests per CPU-second mean anything\n")?;
    }
    if let Some(read) = ALL.first() {
        let rate = rounds::headroom(&mut reactor, &world, read)?;
        say(&format!("Generator and upstream without a peer: {rate:.0} requests a second on their core.\n"))?;
    }
    let extent = extent(arguments);
    let started = Instant::now();
    let mut rows = Vec::new();
    for workload in workloads {
        let peers = peers(workload, &arguments.peers, &world.programs);
        let found = rounds::run(&mut reactor, &world, workload, &peers, extent, &mut note);
        say(&report::table(workload, &found))?;
        rows.extend(found);
    }
    let mutual = mutual(arguments, &mut reactor, &world)?;
    let captured = captured(arguments, &world, [load_core, peer_core])?;
    if !rows.is_empty() {
        say(&report::summary(&rows))?;
    }
    let mut goals = if rows.is_empty() { Vec::new() } else { reach::goals(&rows) };
    if let Some(section) = &mutual {
        say(&mtls::report::table(section))?;
        goals.extend(mtls::report::goals(section));
    }
    if let Some(section) = &captured {
        say(&capture::report::table(section))?;
        say(&capture::report::acceleration(section))?;
        goals.extend(capture::report::goals(section));
    }
    say(&reach::lines(&goals))?;
    say(&format!(
        "{} rounds of {} s a phase, {:.0} s in all. Medians; in brackets least and greatest.",
        extent.rounds,
        extent.span.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ))?;
    if let Some(folder) = &arguments.results {
        let file = folder.join(format!("{}-{}.json", machine.date, machine.class()));
        let extent = json!({"rounds": extent.rounds, "seconds": extent.span.as_secs_f64()});
        let all = json!({
            "machine": machine, "extent": extent, "rows": rows, "mtls": mutual, "capture": captured,
            "reach": goals,
        });
        fs::create_dir_all(folder)?;
        fs::write(&file, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    let lost = captured.is_some_and(|section| section.rows.iter().any(|row| row.failed.is_some()))
        || mutual.is_some_and(|section| section.lost());
    Ok(!lost && !rows.iter().any(|row: &Row| row.failed))
}

/// The rows over mTLS, where they are wanted.
fn mutual(
    arguments: &Arguments,
    reactor: &mut Reactor,
    world: &World,
) -> Result<Option<mtls::Section>, Box<dyn Error>> {
    let everything = arguments.only.is_empty() && arguments.peers.is_empty();
    let named = |row: &str| arguments.only.iter().any(|name| name == MTLS || name == row);
    if !(everything || arguments.only.iter().any(|name| is_mtls(name))) {
        return Ok(None);
    }
    let wanted = |peer: &Peer| {
        if arguments.peers.is_empty() {
            *peer != Peer::Envoy || world.programs.envoy.is_some()
        } else {
            arguments.peers.contains(peer)
        }
    };
    let peers: Vec<Peer> = MTLS_PEERS.into_iter().filter(wanted).collect();
    let scale = mtls::Scale {
        extent: extent(arguments),
        workloads: arguments.certificates.clamp(1, MOST_CERTIFICATES),
    };
    Ok(Some(mtls::run(reactor, world, &peers, scale, &|row| everything || named(row), &mut note)?))
}

/// The rows with pods, where they are wanted and can be had.
fn captured(
    arguments: &Arguments,
    world: &World,
    [load_core, peer_core]: [usize; 2],
) -> Result<Option<Section>, Box<dyn Error>> {
    let named = arguments.only.iter().any(|name| name == CAPTURE);
    let everything = arguments.only.is_empty() && arguments.peers.is_empty();
    if !(named || everything) {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        say("### capture: LEFT OUT: pods as network namespaces, and what captures them, need root\n")?;
        return Ok(None);
    }
    let files = Files { ours: world.programs.ours.clone(), load_core, peer_core };
    Ok(Some(capture::run(&files, &world.tokens, extent(arguments), &mut note)?))
}

fn is_mtls(name: &str) -> bool {
    name == MTLS || name == mtls::MEMORY || mtls::ALL.iter().any(|work| work.name == name)
}

fn extent(arguments: &Arguments) -> Extent {
    let (rounds, seconds) = if arguments.quick { (3, 0.5) } else { (5, 2.0) };
    let seconds = arguments.seconds.filter(|seconds| (0.1..=60.0).contains(seconds)).unwrap_or(seconds);
    Extent { rounds: arguments.rounds.unwrap_or(rounds).max(1), span: Duration::from_secs_f64(seconds) }
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Workload>, String> {
    if arguments.only.is_empty() {
        let takes_part = |workload: &&Workload| !arguments.quick || QUICK.contains(&workload.name);
        return Ok(ALL.iter().filter(takes_part).collect());
    }
    let find = |name: &String| {
        ALL.iter().find(|workload| workload.name == name).ok_or_else(|| {
            let known: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
            let mtls: Vec<&str> = mtls::ALL.iter().map(|work| work.name).collect();
            let (known, mtls) = (known.join(", "), mtls.join(", "));
            format!("no workload {name}; there are {known}, {MTLS} ({mtls}, {}), {CAPTURE}", mtls::MEMORY)
        })
    };
    arguments.only.iter().filter(|name| *name != CAPTURE && !is_mtls(name)).map(find).collect()
}

fn peers(workload: &Workload, chosen: &[Peer], programs: &Programs) -> Vec<Peer> {
    let there = |peer: &Peer| match peer {
        Peer::Envoy | Peer::EnvoyNoCache | Peer::EnvoyLog => programs.envoy.is_some(),
        Peer::Haproxy => programs.haproxy.is_some(),
        Peer::FhirGateway => programs.fhir_gateway.is_some(),
        Peer::Bare | Peer::Fhirward | Peer::FhirwardDefaults => true,
    };
    let wanted = |peer: &Peer| if chosen.is_empty() { there(peer) } else { chosen.contains(peer) };
    workload.peers.iter().copied().filter(wanted).collect()
}

fn programs(arguments: &Arguments) -> Result<Programs, Box<dyn Error>> {
    let beside = std::env::current_exe()?.parent().map(Path::to_path_buf).unwrap_or_default();
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    Ok(Programs {
        envoy: absolute(&arguments.envoy)?,
        haproxy: absolute(&arguments.haproxy)?,
        fhir_gateway: absolute(&arguments.fhir_gateway)?,
        ours: absolute(&arguments.ours)?.unwrap_or(beside),
    })
}

fn world(work: &Path, count: usize, programs: Programs, core: usize) -> Result<World, Box<dyn Error>> {
    let runs = work.join("run");
    fs::create_dir_all(&runs)?;
    note("tokens are signed, or found from an earlier run");
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let tokens = Tokens::load_or_make(&work.join("tokens"), count, is_free, free_address()?.port())?;
    let upstream = (Ipv4Addr::LOCALHOST, tokens.provider.port).into();
    Ok(World::new(tokens, upstream, core, programs, runs))
}

/// The cores that we may run on: the generator has the first, the peers the last.
fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What is going on, for the person who waits.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
