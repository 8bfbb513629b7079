//! Plain `curl`, which knows nothing of the mesh.

use std::process::Command;

use crate::{clients::Seen, pods::Pod};

/// How long any one request may take, in seconds: what is refused is refused at once.
const LIMIT: &str = "10";

/// `curl URL` in a pod.
pub(super) fn get(pod: &Pod, url: &str) -> Seen {
    ask(pod, &[url])
}

/// `curl ARGUMENTS` in a pod.
pub(super) fn ask(pod: &Pod, arguments: &[&str]) -> Seen {
    run(pod.command("curl"), arguments)
}

/// Status and body; where no answer came, status 0 and curl's own words.
pub(super) fn run(mut curl: Command, arguments: &[&str]) -> Seen {
    curl.args(["-q", "-sS", "--noproxy", "*", "--max-time", LIMIT, "-w", "\n%{http_code}"]).args(arguments);
    let output = match curl.output() {
        Ok(output) => output,
        Err(error) => return Seen { status: 0, body: format!("curl cannot be run: {error}") },
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    match status.parse() {
        Ok(status) if status != 0 && output.status.success() => Seen { status, body: body.to_owned() },
        _ => Seen { status: 0, body: String::from_utf8_lossy(&output.stderr).trim().to_owned() },
    }
}

/// Whether curl was refused, or cut off before an answer; a timeout is neither.
pub(super) fn is_refused(seen: &Seen) -> bool {
    // curl's exit codes (curl(1)): 7 failed to connect, 52 empty reply, 55 and 56 failure in sending and in
    // receiving: which of the two, is a race between its words and the reset.
    seen.status == 0 && ["(7)", "(52)", "(55)", "(56)"].iter().any(|code| seen.body.contains(code))
}
