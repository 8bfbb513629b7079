//! One running proxy.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::binary;
use crate::real::{Daemon, RealError, free_port};

/// How long the proxy may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// Why a proxy could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The binary is not there.
    #[error(
        "target/<profile>/fhirward is not built: run `cargo build -p fhirward` (or `cargo xtask test`) first"
    )]
    NotBuilt,
    /// Files.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The process did not start, get ready or end as it should.
    #[error(transparent)]
    Process(#[from] RealError),
    /// The admin server did not answer.
    #[error(transparent)]
    Admin(#[from] reqwest::Error),
}

/// A running `fhirward run`, in a folder of its own. Dropping it kills it.
pub struct Proxy {
    daemon: Option<Daemon>,
    folder: TempDir,
    addresses: BTreeMap<String, SocketAddr>,
    admin: SocketAddr,
}

impl Proxy {
    /// Starts the proxy. `settings` may say `{folder}` for the proxy's own folder, `{NAME}` for the
    /// loopback address of a listener named in `listeners`; the admin address is added.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn start(
        listeners: &[&str],
        settings: &str,
        files: &[(&str, &str)],
    ) -> Result<Self, ProxyError> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            write(folder.path(), name, text)?;
        }
        let mut addresses = BTreeMap::new();
        let mut text = settings.replace("{folder}", &folder.path().display().to_string());
        for name in listeners {
            let address = free_address().await?;
            text = text.replace(&format!("{{{name}}}"), &address.to_string());
            addresses.insert((*name).to_owned(), address);
        }
        let admin = free_address().await?;
        text += &format!("\nadmin: {{address: {admin}}}\n");
        write(folder.path(), "fhirward.yaml", &text)?;
        let mut proxy = Self { daemon: None, folder, addresses, admin };
        proxy.launch().await?;
        Ok(proxy)
    }

    /// Starts the process again after it has ended, on the same addresses.
    ///
    /// # Errors
    /// As [`Proxy::start`].
    pub async fn launch(&mut self) -> Result<(), ProxyError> {
        let mut command = Command::new(binary()?);
        command.arg("run").arg("--config").arg(self.folder.path().join("fhirward.yaml"));
        let mut daemon = Daemon::spawn("fhirward", &command, &self.folder.path().join("log"))?;
        let admin = self.admin;
        daemon.wait_until(LIMIT, async |_| answers(admin).await).await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// The base URL of a listener.
    ///
    /// # Panics
    /// When there is no such listener.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn url(&self, listener: &str) -> String {
        format!("http://{}", self.address(listener))
    }

    /// The address of a listener.
    ///
    /// # Panics
    /// When there is no such listener.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self.addresses.get(listener).expect("a listener of that name")
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A page of the admin server: status and body.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn page(&self, path: &str) -> Result<(u16, String), ProxyError> {
        let response = reqwest::get(format!("http://{}{path}", self.admin)).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// `/readyz` as JSON.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readiness(&self) -> Result<Value, ProxyError> {
        Ok(reqwest::get(format!("http://{}/readyz", self.admin)).await?.json().await?)
    }

    /// The value of a metric: the sum over the series whose text holds every one of `labels`.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64, ProxyError> {
        let (_, page) = self.page("/metrics").await?;
        let fits = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        Ok(page.lines().filter(fits).filter_map(value).sum())
    }

    /// Writes a file in the proxy's folder, in one step, as `kubectl` and editors do.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), ProxyError> {
        Ok(write(self.folder.path(), name, text)?)
    }

    /// The proxy's folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Everything the process has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// SIGTERM, and waits for the end of the drain.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<(), ProxyError> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(LIMIT * 3).await?;
        }
        Ok(())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let target = folder.join(name);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let aside = folder.join(format!(".{}.new", name.replace('/', "-")));
    std::fs::write(&aside, text)?;
    std::fs::rename(aside, target)
}

async fn free_address() -> Result<SocketAddr, RealError> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await?)))
}

async fn answers(admin: SocketAddr) -> bool {
    // Any answer will do: a proxy whose manifests are broken is up, and says so in its body.
    reqwest::get(format!("http://{admin}/readyz")).await.is_ok()
}
