//! `certs mint`: a CA and one leaf certificate, as files.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::{Authority, Error, KeyKind, LeafRequest, Validity, write_private};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Mints throw-away certificates for trying out TLS. Not for production.
#[derive(Parser)]
#[command(name = "certs", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a new CA and one leaf signed by it: ca.pem, tls.crt and tls.key in the --out folder
    Mint(Mint),
}

#[derive(Args)]
struct Mint {
    /// Folder for the files; made when missing, files of the same names are replaced
    #[arg(long)]
    out: PathBuf,
    /// DNS name of the leaf; may be repeated
    #[arg(long)]
    dns: Vec<String>,
    /// IP address of the leaf; may be repeated
    #[arg(long)]
    ip: Vec<IpAddr>,
    /// SPIFFE ID of the leaf, such as spiffe://cluster.local/ns/datamesh/sa/fhir-server
    #[arg(long)]
    spiffe: Option<String>,
    /// Days for which CA and leaf hold
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Kind of the keys
    #[arg(long, value_enum, default_value_t = Key::Ecdsa)]
    key: Key,
    /// Folder of a CA that exists, to sign with instead of a new one: ca.pem and ca.key, or the newest
    /// root of Fhirward's embedded authority
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Also keep the CA's own key, as ca.key: whoever has it can mint any name
    #[arg(long)]
    keep_ca_key: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Key {
    /// ECDSA P-256
    Ecdsa,
    /// RSA 2048
    Rsa,
}

fn main() -> ExitCode {
    let Command::Mint(mint) = Cli::parse().command;
    match run(mint) {
        Ok(report) => match io::stdout().write_all(report.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "certs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mint: Mint) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::Validity)?;
    let life = Duration::from_secs(u64::from(mint.days) * 24 * 60 * 60);
    let validity = Validity::starting(now.as_secs(), life)?;
    let key = match mint.key {
        Key::Ecdsa => KeyKind::EcdsaP256,
        Key::Rsa => KeyKind::Rsa2048,
    };
    let request = LeafRequest {
        dns: mint.dns,
        ips: mint.ip,
        spiffe_id: mint.spiffe,
        validity: Some(validity),
        key,
        ..LeafRequest::default()
    };
    let authority = match &mint.ca {
        Some(folder) => existing(folder)?,
        None => Authority::mint_with("Fhirward throw-away CA", key, validity)?,
    };
    let files = authority.issue(&request)?.write_to(&mint.out, &authority)?;
    let mut report = String::new();
    for path in [&files.ca, &files.certificate, &files.key] {
        report.push_str(&format!("{}\n", path.display()));
    }
    if mint.keep_ca_key {
        let path = mint.out.join("ca.key");
        write_private(&path, &authority.key_pem_for_safekeeping())?;
        report.push_str(&format!("{}\n", path.display()));
    }
    Ok(report)
}

/// The authority in a folder: `ca.pem` with `ca.key`, or the newest `root-<time>.crt` that has its key.
fn existing(folder: &Path) -> Result<Authority, Error> {
    let failed = |path: &Path, source| Error::Read { path: path.to_owned(), source };
    let mut pairs = vec![(0_u64, folder.join("ca.pem"), folder.join("ca.key"))];
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let created = name.strip_prefix("root-").and_then(|name| name.strip_suffix(".crt")?.parse().ok());
        if let Some(created) = created {
            let key = path.with_extension("key");
            pairs.push((created, path, key));
        }
    }
    pairs.sort();
    let found = pairs.into_iter().rev().find(|(_, certificate, key)| certificate.is_file() && key.is_file());
    let Some((_, certificate, key)) = found else {
        return Err(failed(folder, io::Error::other("holds no CA with its key")));
    };
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| failed(path, error));
    Authority::from_pem(&read(&certificate)?, &read(&key)?)
}
