//! A bounded load: requests one after another on a few connections, every outcome counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

/// No load runs longer than this, whatever happens to its test.
const LONGEST: Duration = Duration::from_secs(120);

/// A running load. It stops by itself.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<()>,
    outcomes: Arc<Mutex<BTreeMap<Outcome, u64>>>,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An answer with this status, read to its end.
    Status(u16),
    /// No connection: nothing was sent, so no request failed.
    NotConnected,
    /// No whole answer: why.
    Failed(String),
}

impl Load {
    /// Starts `clients` workers, each with a client of its own, sending the request over and over,
    /// `pause` apart.
    #[must_use]
    pub fn start<F>(clients: usize, pause: Duration, request: F) -> Self
    where
        F: Fn(&reqwest::Client) -> reqwest::RequestBuilder + Clone + Send + Sync + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(BTreeMap::new()));
        let mut workers = JoinSet::new();
        for _ in 0..clients {
            let (stop, outcomes, request) = (Arc::clone(&stop), Arc::clone(&outcomes), request.clone());
            workers.spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().unwrap_or_default();
                let started = Instant::now();
                while !stop.load(Ordering::Relaxed) && started.elapsed() < LONGEST {
                    let outcome = ask(request(&client)).await;
                    *outcomes.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_insert(0) += 1;
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { stop, workers, outcomes }
    }

    /// How many requests have ended so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Ends the load and tells what came of its requests.
    pub async fn finish(mut self) -> BTreeMap<Outcome, u64> {
        self.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Outcome {
    let answer = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        response.bytes().await?;
        Ok::<_, reqwest::Error>(status)
    };
    match answer.await {
        Ok(status) => Outcome::Status(status),
        Err(error) if error.is_connect() => Outcome::NotConnected,
        Err(error) => Outcome::Failed(chain(&error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}
