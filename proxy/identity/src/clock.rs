//! The clock, passed in (invariant 9).

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock in Unix seconds: the system's, or one that stands still for offline runs.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// Always this Unix time in seconds.
    Fixed(i64),
}

impl Clock {
    /// Now, in Unix seconds.
    #[must_use]
    pub fn now(self) -> i64 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        }
    }
}
