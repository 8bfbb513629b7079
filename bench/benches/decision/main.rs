//! The pure decision: nanoseconds and allocations, at 1, 100 and 10,000 policies.
//!
//! `cargo bench -p bench --bench decision`. First a table of ratios, measured in turns within one
//! run, so that a busy machine is busy for both sides; then criterion's own figures.

mod counting;
mod meshes;

use std::{
    hint::black_box,
    io::Write as _,
    time::{Duration, Instant},
};

use criterion::Criterion;
use meshes::{Asked, KINDS, Shape, asked, workload_policy};
use policy::istio::WorkloadPolicy;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Sizes of each shape; the first is what the others are compared with. A decision costs by the kinds
/// of values that policies ask for (a path, a claim, a header: each one look-up), not by their number:
/// hence `Mixed` with one of each kind, between one policy and ten thousand.
const SIZES: [(Shape, [usize; 3]); 2] =
    [(Shape::Roles, [1, 100, 10_000]), (Shape::Mixed, [1, KINDS, 10_000])];
/// Rounds of the table, and decisions a round: short and many, so that some are undisturbed on any
/// machine. The fastest round of each counts.
const ROUNDS: usize = 600;
const DECISIONS: u32 = 1_000;

fn time(policy: &WorkloadPolicy, asked: &Asked) -> Duration {
    let question = asked.question();
    let started = Instant::now();
    for _ in 0..DECISIONS {
        let decision = black_box(policy).decide(black_box(&question));
        assert_eq!(black_box(decision).verdict, asked.verdict);
    }
    started.elapsed()
}

/// One line a shape, question and size.
fn ratios(out: &mut impl std::io::Write) -> std::io::Result<()> {
    writeln!(out, "| policies | question | ns | against the first | allocations |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (shape, sizes) in SIZES {
        let policies = sizes.map(|count| workload_policy(shape, count));
        for asked in &asked() {
            let mut fastest = [Duration::MAX; 3];
            for _ in 0..ROUNDS {
                for (policy, fastest) in policies.iter().zip(&mut fastest) {
                    *fastest = time(policy, asked).min(*fastest);
                }
            }
            let ns = fastest.map(|time| time.as_secs_f64() * 1e9 / f64::from(DECISIONS));
            for ((count, policy), own) in sizes.iter().zip(&policies).zip(ns) {
                let (allocations, _) = counting::allocations(|| policy.decide(&asked.question()));
                let (name, ratio) = (asked.name, own / ns[0]);
                writeln!(out, "| {count} {shape:?} | {name} | {own:.0} | {ratio:.2} | {allocations} |")?;
            }
        }
    }
    writeln!(out)
}

fn criterion(criterion: &mut Criterion) {
    for (shape, sizes) in SIZES {
        for count in sizes {
            let policy = workload_policy(shape, count);
            for asked in &asked() {
                let question = asked.question();
                assert_eq!(policy.decide(&question).verdict, asked.verdict);
                criterion.bench_function(&format!("{} among {count} {shape:?}", asked.name), |bencher| {
                    bencher.iter(|| policy.decide(black_box(&question)));
                });
            }
        }
    }
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    ratios(&mut out)?;
    out.flush()?;
    drop(out);
    let mut suite = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    criterion(&mut suite);
    suite.final_summary();
    Ok(())
}
