//! Load that goes on until it is told to end: every attempt is counted, every change is said.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{Outcome, say, socket_for};

/// From the first port of the range on, so many; below the ephemeral ports, so that none of the
/// proxy's own connections has one.
const PORTS: u16 = 10_000;
/// One exchange. Long: a slow machine is no failure, a connection that hangs is.
const PATIENCE: Duration = Duration::from_secs(20);
const BETWEEN: Duration = Duration::from_millis(5);
/// Own ports that are not free yet are no failure of whoever is tested.
const PORT_ATTEMPTS: u32 = 200;

struct Load {
    to: SocketAddr,
    from: Option<u16>,
    next: AtomicU16,
    done: AtomicU64,
    failed: AtomicU64,
    well: AtomicBool,
    first_failure: Mutex<Option<String>>,
    end: AtomicBool,
}

/// Says `well MILLISECONDS` and `ill MILLISECONDS WHY` at each change (since 1970), and at the end
/// `end DONE FAILED FIRST-FAILURE`.
pub async fn run(to: SocketAddr, tasks: u32, kind: &str, from: Option<u16>) -> Outcome<()> {
    let kept = match kind {
        "new" => false,
        "kept" => true,
        _ => return Err(format!("{kind:?} is neither new nor kept").into()),
    };
    let load = Arc::new(Load {
        to,
        from,
        next: AtomicU16::new(0),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        well: AtomicBool::new(false),
        first_failure: Mutex::new(None),
        end: AtomicBool::new(false),
    });
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let load = Arc::clone(&load);
            tokio::spawn(async move { if kept { load.keep().await } else { load.renew().await } })
        })
        .collect();
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    load.end.store(true, Ordering::Relaxed);
    for task in running {
        task.await?;
    }
    let first = load.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    say(&format!("end {done} {failed} {}", first.unwrap_or_default()));
    Ok(())
}

impl Load {
    /// A connection for each exchange.
    async fn renew(&self) {
        while !self.end.load(Ordering::Relaxed) {
            let outcome = timeout(PATIENCE, async {
                let mut stream = self.connect().await?;
                exchange(&mut stream).await?;
                stream.shutdown().await?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await?;
                if rest.is_empty() { Ok(()) } else { Err("more came than was asked for".into()) }
            });
            self.tell(outcome.await.unwrap_or_else(|_| Err("hangs".into())));
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// One connection for as many exchanges as it lives.
    async fn keep(&self) {
        while !self.end.load(Ordering::Relaxed) {
            let mut stream = match timeout(PATIENCE, self.connect()).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    self.tell(Err(error));
                    tokio::time::sleep(BETWEEN).await;
                    continue;
                }
                Err(_) => {
                    self.tell(Err("hangs".into()));
                    continue;
                }
            };
            while !self.end.load(Ordering::Relaxed) {
                let outcome =
                    timeout(PATIENCE, exchange(&mut stream)).await.unwrap_or_else(|_| Err("hangs".into()));
                let over = outcome.is_err();
                self.tell(outcome);
                if over {
                    break;
                }
                tokio::time::sleep(BETWEEN).await;
            }
        }
    }

    async fn connect(&self) -> Outcome<BufReader<TcpStream>> {
        let Some(first) = self.from else {
            return Ok(BufReader::new(socket_for(self.to)?.connect(self.to).await?));
        };
        for _ in 0..PORT_ATTEMPTS {
            let port = first + self.next.fetch_add(1, Ordering::Relaxed) % PORTS;
            let socket = socket_for(self.to)?;
            socket.set_reuseaddr(true)?;
            let any: SocketAddr =
                if self.to.is_ipv6() { ([0_u16; 8], port).into() } else { ([0_u8; 4], port).into() };
            if socket.bind(any).is_err() {
                continue;
            }
            match socket.connect(self.to).await {
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable
                    ) => {}
                outcome => return Ok(BufReader::new(outcome?)),
            }
        }
        Err("no port of our own is free".into())
    }

    fn tell(&self, outcome: Outcome<()>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        match outcome {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                if !self.well.swap(true, Ordering::Relaxed) {
                    say(&format!("well {now}"));
                }
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.first_failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_with(|| error.to_string());
                if self.well.swap(false, Ordering::Relaxed) {
                    say(&format!("ill {now} {error}"));
                }
            }
        }
    }
}

/// Asks who is there: the server's name, whom it sees, and where it was reached.
pub async fn who(stream: &mut BufReader<TcpStream>) -> Outcome<(String, SocketAddr, SocketAddr)> {
    stream.write_all(b"who\n").await?;
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err("closed".into());
    }
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [name, peer, local] => Ok(((*name).to_owned(), peer.parse()?, local.parse()?)),
        _ => Err(format!("answered {line:?}").into()),
    }
}

/// One exchange.
pub async fn exchange(stream: &mut BufReader<TcpStream>) -> Outcome<()> {
    who(stream).await.map(drop)
}

/// One exchange from a port of our own. A server that sees it was reached past the proxy.
pub async fn ask(to: SocketAddr, from: u16) -> Outcome<()> {
    let socket = socket_for(to)?;
    socket.set_reuseaddr(true)?;
    socket.bind(if to.is_ipv6() { ([0_u16; 8], from).into() } else { ([0_u8; 4], from).into() })?;
    let exchanged = timeout(PATIENCE, async { who(&mut BufReader::new(socket.connect(to).await?)).await });
    let (name, peer, local) = exchanged.await??;
    let how = if peer.port() == from { "past" } else { "through" };
    say(&format!("{how} {name} {peer} {local}"));
    Ok(())
}

/// The first line of a server that speaks first.
pub async fn hear(to: SocketAddr) -> Outcome<()> {
    let heard = timeout(PATIENCE, async {
        let mut line = String::new();
        BufReader::new(socket_for(to)?.connect(to).await?).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    });
    let heard = heard.await??;
    if heard.is_empty() {
        return Err("closed".into());
    }
    say(&format!("heard {}", heard.trim()));
    Ok(())
}
