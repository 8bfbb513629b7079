//! A real PostgreSQL in a pod.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use demo::pods::Pod;

use super::{Error, Program, Result, eventually};

/// The user as which PostgreSQL runs here: it refuses root.
const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(180);

/// Starts a PostgreSQL in a pod, on every address of it, port 5432; `data` is made. Everybody may connect,
/// and each connection is told in what it says. Its user and superuser is `nobody`.
///
/// # Errors
/// When it is not installed, or does not come up.
pub fn postgres(pod: &Pod, data: &Path) -> Result<Program> {
    fs::create_dir(data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
    chown(data, Some(NOBODY), Some(NOBODY))?;
    let programs = programs()?;
    let user = NOBODY.to_string();
    let as_nobody = ["--reuid", &user, "--regid", &user, "--clear-groups"];
    let mut command = Command::new("setpriv");
    command.current_dir("/").args(as_nobody).arg(programs.join("initdb"));
    command.args(["-A", "trust", "-U", "nobody", "-N", "--locale=C", "-D"]).arg(data);
    Program::run("initdb", command, LIMIT)?;
    fs::write(data.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n")?;
    let mut command = pod.command("setpriv");
    command.current_dir("/").args(as_nobody).arg(programs.join("postgres")).arg("-D").arg(data);
    for setting in ["listen_addresses=*", "unix_socket_directories=", "fsync=off", "log_connections=on"] {
        command.args(["-c", setting]);
    }
    let server = Program::start("postgres", command)?;
    eventually("PostgreSQL is ready", LIMIT, || {
        let said = server.said();
        if said.contains("ready to accept connections") { Ok(()) } else { Err(said) }
    })?;
    Ok(server)
}

/// `psql -h HOST` in a pod, as its user, with words of its own.
#[must_use]
pub fn psql(pod: &Pod, host: &str, words: &[&str]) -> Command {
    let mut command = pod.command("psql");
    command.env("PGCONNECT_TIMEOUT", "60").args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
    command.args(["-U", "nobody", "-d", "postgres", "-h", host]).args(words);
    command
}

/// The newest version's folder, as Debian lays them out.
fn programs() -> Result<PathBuf> {
    let missing = |what: &str| Error::Late(format!("PostgreSQL: {what}: cargo xtask provision"));
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|error| missing(&error.to_string()))?;
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().ok_or_else(|| missing("no initdb"))
}
