//! A provider's health, with hysteresis: it takes several failures over some time to be called
//! down, and several successes to be called up again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Health, settings::HealthSettings};

/// Counts fetches in a row.
#[derive(Debug)]
pub(crate) struct HealthMeter {
    settings: HealthSettings,
    health: Health,
    /// Failures since the last success, and when the first of them was.
    failures: u32,
    failing_since: Option<Instant>,
    /// Successes since the last failure.
    successes: u32,
    ever_failed: bool,
}

impl HealthMeter {
    /// Before the first fetch nothing is known: `degraded`.
    pub(crate) fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            health: Health::Degraded,
            failures: 0,
            failing_since: None,
            successes: 0,
            ever_failed: false,
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.health
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// A fetch succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.successes = self.successes.saturating_add(1);
        let wanted = self.settings.up_after_successes;
        self.health = match self.health {
            Health::Up => Health::Up,
            _ if !self.ever_failed || self.successes >= wanted => Health::Up,
            _ => Health::Degraded,
        };
    }

    /// A fetch failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.ever_failed = true;
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let long = now - since >= Duration::from_secs(self.settings.down_after_seconds);
        if long && self.failures >= self.settings.down_after_failures {
            self.health = Health::Down;
        } else if self.health == Health::Up && self.failures >= self.settings.degraded_after_failures {
            self.health = Health::Degraded;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn meter() -> HealthMeter {
        HealthMeter::new(HealthSettings {
            degraded_after_failures: 2,
            down_after_failures: 3,
            down_after_seconds: 15,
            up_after_successes: 2,
        })
    }

    #[test]
    fn the_first_success_is_enough_where_nothing_ever_failed() {
        let mut meter = meter();
        assert_eq!(meter.health(), Health::Degraded);
        meter.succeeded();
        assert_eq!(meter.health(), Health::Up);
    }

    #[test]
    fn one_failure_is_forgiven_and_down_takes_count_and_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = meter();
        meter.succeeded();
        meter.failed(at(0));
        assert_eq!(meter.health(), Health::Up);
        meter.failed(at(1));
        assert_eq!(meter.health(), Health::Degraded);
        meter.failed(at(2));
        meter.failed(at(14));
        assert_eq!(meter.health(), Health::Degraded, "enough failures, not long enough");
        meter.failed(at(15));
        assert_eq!(meter.health(), Health::Down);
        meter.succeeded();
        assert_eq!(meter.health(), Health::Degraded, "one success is not yet up");
        meter.succeeded();
        assert_eq!(meter.health(), Health::Up);
    }

    #[test]
    fn long_silence_between_few_failures_is_not_down() {
        let start = Instant::now();
        let mut meter = meter();
        meter.succeeded();
        meter.failed(start);
        meter.failed(start + Duration::from_secs(600));
        assert_eq!(meter.health(), Health::Degraded);
    }

    #[test]
    fn flapping_does_not_reach_up_or_down() {
        let start = Instant::now();
        let mut meter = meter();
        meter.failed(start);
        for second in 1..100 {
            meter.succeeded();
            assert_eq!(meter.health(), Health::Degraded);
            meter.failed(start + Duration::from_secs(second));
            assert_eq!(meter.health(), Health::Degraded);
        }
    }
}
