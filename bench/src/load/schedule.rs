//! Arrivals fixed before the first request leaves, so that a slow answer cannot put off the next request.

use std::time::Duration;

/// The moments at which requests are due, counted from the start of a run, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Schedule {
    /// Poisson arrivals: `rate` a second on average for `span`, the same ones for the same `seed`.
    #[must_use]
    pub fn poisson(rate: f64, span: Duration, seed: u64) -> Self {
        let mut numbers = SplitMix(seed);
        let mut due = Vec::new();
        let mut at = 0.0;
        let end = span.as_secs_f64();
        // A rate that is no rate has no arrivals, rather than endless ones.
        while rate.is_finite() && rate > 0.0 {
            at += -numbers.unit().ln() / rate;
            if at >= end {
                break;
            }
            due.push(Duration::from_secs_f64(at));
        }
        Self(due)
    }

    /// Arrivals `gap` apart, the first after one gap.
    #[must_use]
    pub fn even(gap: Duration, count: u32) -> Self {
        Self((1..=count).map(|index| gap * index).collect())
    }

    /// When the request of this index is due.
    #[must_use]
    pub fn due(&self, index: usize) -> Option<Duration> {
        self.0.get(index).copied()
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no request at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Steele and others' SplitMix64: small, seeded, good enough for arrivals.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In (0, 1]: its logarithm is finite.
    #[allow(clippy::cast_precision_loss)]
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}
