//! A real Prometheus that scrapes loopback addresses every second and answers queries.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use xtask::provision::Part;

use super::daemon::{Daemon, run_folder};
use super::error::{RealError, Result};
use super::{client, free_port, loopback, part};

const START_LIMIT: Duration = Duration::from_secs(60);
const TARGETS: &str = "@TARGETS@";
/// How often a query is repeated while its answer is awaited.
const POLL: Duration = Duration::from_millis(250);

/// A running Prometheus. Dropping it ends it, with all that it scraped.
#[derive(Debug)]
pub struct Prometheus {
    daemon: Daemon,
    http: reqwest::Client,
    base_url: String,
    _folder: TempDir,
}

/// One series of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them where the query keeps it.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// The time in seconds, and the value as text.
    value: (f64, String),
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `/metrics` of every target each second.
    ///
    /// # Errors
    /// When it is not provisioned, or does not come up.
    pub async fn start(targets: &[SocketAddr]) -> Result<Self> {
        let program = part(Part::Prometheus)?.join("bin/prometheus");
        let folder = run_folder("prometheus")?;
        let template = Part::Prometheus.source().join("prometheus.yml");
        let read = |source| RealError::Read { path: template.clone(), source };
        let list: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let settings = fs::read_to_string(&template).map_err(read)?;
        let settings =
            settings.replace(&format!("targets: {TARGETS}"), &format!("targets: [{}]", list.join(", ")));
        fs::write(folder.path().join("prometheus.yml"), settings)?;

        let address = loopback(free_port().await?);
        let mut command = Command::new(program);
        command.current_dir(folder.path());
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}"));
        let mut daemon = Daemon::spawn("prometheus", &command, &folder.path().join("log"))?;
        let (http, base_url) = (client()?, format!("http://{address}"));
        let probe = format!("{base_url}/-/ready");
        let ready = async |_: &Daemon| {
            http.get(&probe).send().await.is_ok_and(|response| response.status().is_success())
        };
        daemon.wait_until(START_LIMIT, ready).await?;
        Ok(Self { daemon, http, base_url, _folder: folder })
    }

    /// Asks an instant query.
    ///
    /// # Errors
    /// When Prometheus refuses the query, or its answer is no vector.
    pub async fn query(&self, promql: &str) -> Result<Vec<Sample>> {
        let url = format!("{}/api/v1/query", self.base_url);
        let response = self.http.get(url).query(&[("query", promql)]).send().await?;
        let status = response.status();
        if !status.is_success() {
            let (what, body) = (format!("the query {promql}"), response.text().await?);
            return Err(RealError::Refused { what, status: status.as_u16(), body });
        }
        let answer: Answer = response.json().await?;
        answer.data.result.into_iter().map(sample).collect()
    }

    /// Asks until the answer satisfies `wanted`, as a scrape comes only each second.
    ///
    /// # Errors
    /// When it never does within `limit`: the error shows the last answer.
    pub async fn query_until<F>(&self, promql: &str, limit: Duration, wanted: F) -> Result<Vec<Sample>>
    where
        F: Fn(&[Sample]) -> bool,
    {
        let started = Instant::now();
        loop {
            let samples = self.query(promql).await?;
            if wanted(&samples) {
                return Ok(samples);
            }
            if started.elapsed() > limit {
                return Err(RealError::Shape(format!("{promql} after {limit:?}: {samples:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Everything Prometheus has written.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

fn sample(series: Series) -> Result<Sample> {
    let text = series.value.1;
    let value = text.parse().map_err(|_| RealError::Shape(format!("a value that is no number: {text}")))?;
    Ok(Sample { labels: series.metric, value })
}
