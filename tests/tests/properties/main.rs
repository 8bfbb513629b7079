//! What must hold of every policy and every question, tried on random ones.
//!
//! Runs are the same each time: the random numbers start from a fixed seed. `PROPTEST_CASES=20000`
//! tries more worlds, `PROPTEST_RNG_SEED=7` others; a failure is shrunk and printed as manifests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agreement;
mod commands;
mod decided;
mod golden;
mod isolation;
mod monotone;
mod order;
mod round_trip;
mod scene;
mod token;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};

/// The seed where none is asked for.
const SEED: u64 = 0x0046_4849_5257;

/// So many cases, unless `PROPTEST_CASES` says otherwise; from a fixed seed, unless
/// `PROPTEST_RNG_SEED` does. Nothing is kept in files: the seed is the persistence.
fn config(cases: u32) -> Config {
    let asked = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    let rng_seed = match asked.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed => fixed,
    };
    Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 4096, ..asked }
}

/// Tries the property on so many inputs; a failure is told by its shrunk reason alone.
fn hold<S: Strategy>(cases: u32, inputs: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    match TestRunner::new(config(cases)).run(inputs, property) {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("too few inputs fit: {reason}"),
    }
}
