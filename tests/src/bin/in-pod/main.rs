//! What runs inside the pods of the tests of capture: a server of several faces, and clients that
//! load it. A process of its own, because the programs of capture hang on a process's cgroup.
//!
//! ```text
//! in-pod serve NAME PORT [LOOPBACK-ONLY-PORT]      lines; HTTP when it is asked in HTTP; on the port
//!                                                  after the second it speaks first, and the next
//!                                                  is as the first
//! in-pod names NAME ANSWER                         a name server: ANSWER for every name, UDP and TCP 53
//! in-pod ask TO:PORT FROM-PORT                     `through …` or `past …`, by whose port the server saw
//! in-pod load TO:PORT TASKS new|kept [FROM-PORT]   until its standard input ends
//! in-pod hold TO:PORT CONNECTIONS                  one exchange on each, then one more a line of input
//! in-pod pull TO:PORT CONNECTIONS BYTES            asks for BYTES, reads none until a line of input
//! in-pod push TO:PORT CONNECTIONS                  writes to who does not read, says how much was taken
//! in-pod count TO:PORT BYTES                       sends BYTES, ends its half, says what the server counted
//! in-pod hear TO:PORT                              what the server says before it is asked: `heard LINE`
//! in-pod hbone TO:PORT AUTHORITY FOLDER|none [NAME=VALUE…]
//!                                                  one CONNECT with FOLDER's tls.crt and tls.key, whoever
//!                                                  the server is, and one `who` in it
//! ```

mod hbone;
mod load;
mod names;
mod press;
mod serve;

use std::{env, error::Error, io::Write, net::SocketAddr, process::ExitCode};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Ten thousand connections and what else a process holds.
const OPEN_FILES: u64 = 65_536;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let limit = rustix::process::Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    // Where it is refused, what needs it fails with a name.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    match act(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn act(words: &[&str]) -> Outcome<()> {
    match words {
        ["serve", name, port] => serve::run(name, port.parse()?, None).await,
        ["serve", name, port, inner] => serve::run(name, port.parse()?, Some(inner.parse()?)).await,
        ["names", name, answer] => names::run(name, answer.parse()?).await,
        ["ask", to, from] => load::ask(to.parse()?, from.parse()?).await,
        ["load", to, tasks, kind] => load::run(to.parse()?, tasks.parse()?, kind, None).await,
        ["load", to, tasks, kind, from] => {
            load::run(to.parse()?, tasks.parse()?, kind, Some(from.parse()?)).await
        }
        ["hold", to, connections] => press::hold(to.parse()?, connections.parse()?).await,
        ["pull", to, connections, bytes] => {
            press::pull(to.parse()?, connections.parse()?, bytes.parse()?).await
        }
        ["count", to, bytes] => press::count(to.parse()?, bytes.parse()?).await,
        ["hear", to] => load::hear(to.parse()?).await,
        ["hbone", to, authority, folder, headers @ ..] => {
            hbone::run(to.parse()?, authority, Some(*folder).filter(|name| *name != "none"), headers).await
        }
        ["push", to, connections] => press::push(to.parse()?, connections.parse()?).await,
        _ => Err("usage: see the head of main.rs".into()),
    }
}

/// One line for whoever started this.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A socket of the address's family.
fn socket_for(to: SocketAddr) -> std::io::Result<tokio::net::TcpSocket> {
    if to.is_ipv6() { tokio::net::TcpSocket::new_v6() } else { tokio::net::TcpSocket::new_v4() }
}

/// The `index`-th byte of whatever is long: tells loss, repetition and disorder.
fn pattern(index: u64) -> u8 {
    (index ^ (index >> 8) ^ (index >> 16)).to_le_bytes()[0]
}
