//! The text of `/metrics`: the registry's, and states that others know only at that moment.

use std::fmt::Write as _;

use prometheus::{Encoder as _, TextEncoder};

use super::Metrics;

/// The registry's content could not be written as text.
pub type ExpositionError = prometheus::Error;

/// A page of Prometheus text (exposition format 0.0.4) under construction.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// `Content-Type` of the page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Starts with everything the registry holds.
    ///
    /// # Errors
    /// When the registry's content cannot be written as text.
    pub fn of(metrics: &Metrics) -> Result<Self, ExpositionError> {
        let mut bytes = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&metrics.registry().gather(), &mut bytes)?;
        Ok(Self { text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Adds a gauge: one sample for each set of labels.
    pub fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.family(name, help, "gauge", samples);
    }

    /// Adds a counter (its name ends in `_total`).
    pub fn counter<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.family(name, help, "counter", samples);
    }

    fn family<'a>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.text.push_str(name);
            if !labels.is_empty() {
                let labels: Vec<String> =
                    labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escape(text))).collect();
                let _ = write!(self.text, "{{{}}}", labels.join(","));
            }
            let _ = writeln!(self.text, " {value}");
        }
    }

    /// The page.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }
}

/// Labels with their values, and the sample's value.
pub type Sample<'a> = (Vec<(&'a str, String)>, f64);

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
