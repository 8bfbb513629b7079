//! A client's side of a connection, in memory: the fuzzer's bytes in, the proxy's bytes out.

use std::{
    any::Any,
    io,
    pin::Pin,
    sync::{Arc, Mutex, Once},
    task::{Context, Poll, Waker},
    time::Duration,
};

use dataplane::{Proxy, fuzzing, record::Recorder};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};

use crate::{
    runtime,
    upstream::{Log, Seen, Upstream},
    world::{self, Asked, Witness, lock},
};

/// A connection that is not over so long after its client's last byte hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long everything must be still before the client closes its side. Only what is reached depends on
/// it, not what must hold.
const STILL: Duration = Duration::from_millis(1);

/// In builds with debug assertions, and in those alone, h2 asserts that no stream is open when a connection
/// is dropped. With a client that goes away there may be (hyperium/h2#907).
const KNOWN: &str = "assertion failed: !self.has_streams()";

fn is_known(payload: &(dyn Any + Send)) -> bool {
    payload.downcast_ref::<&str>() == Some(&KNOWN)
}

/// That one assertion is no finding; every other panic goes where it went.
fn let_pass_known() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let known = info.payload().downcast_ref::<&str>() == Some(&KNOWN);
            if !known {
                others(info);
            }
        }));
    });
}

#[derive(Debug, Default)]
struct State {
    /// What the client sends, a piece for each read; last first.
    pieces: Vec<Vec<u8>>,
    closed: bool,
    output: Vec<u8>,
    most: usize,
    reader: Option<Waker>,
    moves: u64,
}

/// The proxy's end.
#[derive(Debug, Clone)]
struct Wire(Arc<Mutex<State>>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        let Some(mut piece) = state.pieces.pop() else {
            if state.closed {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.moves += 1;
        let rest = piece.split_off(piece.len().min(buf.remaining()));
        if !rest.is_empty() {
            state.pieces.push(rest);
        }
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        state.moves += 1;
        state.output.extend_from_slice(bytes);
        assert!(state.output.len() <= state.most, "{} bytes of answer", state.output.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What came of a connection.
pub(crate) struct Run {
    /// What the client got.
    pub(crate) output: Vec<u8>,
    /// What the engine was asked, in order.
    pub(crate) asked: Vec<Asked>,
    /// What was told of it.
    pub(crate) told: Vec<observe::Record>,
    /// What reached the upstream.
    pub(crate) seen: Vec<Seen>,
}

/// Sends the pieces on one connection and sees what comes of them. The client closes its side when
/// nothing moves any more.
pub(crate) fn run(mut pieces: Vec<Vec<u8>>) -> Run {
    let sent: usize = pieces.iter().map(Vec::len).sum();
    pieces.retain(|piece| !piece.is_empty());
    pieces.reverse();
    // The upstream is the process's one: tests come from several threads.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    let_pass_known();
    let most = 64 * 1024 + 64 * sent;
    let wire = Wire(Arc::new(Mutex::new(State { pieces, most, ..State::default() })));
    let witness = Arc::new(Witness::default());
    let recorder = Arc::clone(&witness) as Arc<dyn Recorder>;
    let proxy = Proxy::new(Arc::clone(&witness), recorder, world::limits());
    let seen = runtime().block_on(async {
        let mut upstream = Upstream::begin();
        let log = upstream.log.clone();
        let served = tokio::spawn(fuzzing::serve(proxy, world::facts(false), wire.clone()));
        let work = async {
            close_when_still(&wire, &witness, &log, &served).await;
            tokio::time::timeout(PATIENCE, served).await
        };
        let ended = tokio::select! {
            ended = work => ended,
            never = upstream.accept() => match never {},
        };
        match ended {
            Err(_) => panic!("the connection hangs after its client's end"),
            Ok(Err(error)) => {
                let payload = error.into_panic();
                if !is_known(&*payload) {
                    std::panic::resume_unwind(payload);
                }
                all_told(&witness).await;
            }
            Ok(Ok(())) => {}
        }
        upstream.end().await
    });
    let output = std::mem::take(&mut lock(&wire.0).output);
    let (asked, told) = (lock(&witness.asked).clone(), lock(&witness.told).clone());
    assert!(told.len() >= asked.len(), "{} were judged, {} told", asked.len(), told.len());
    Run { output, asked, told, seen }
}

/// Waits for the streams of a connection that ended before them.
async fn all_told(witness: &Witness) {
    let told = async {
        while lock(&witness.told).len() < lock(&witness.asked).len() {
            tokio::time::sleep(STILL).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, told).await;
    assert!(ended.is_ok(), "a stream is never told");
}

/// Closes the client's side when all is read and nothing more comes of it.
async fn close_when_still(wire: &Wire, witness: &Witness, log: &Log, served: &JoinHandle<()>) {
    let mut before = None;
    loop {
        // All that can go on without waiting does so.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let (waits, moves) = {
            let state = lock(&wire.0);
            (state.pieces.is_empty() && state.reader.is_some(), state.moves)
        };
        let (asked, told) = (lock(&witness.asked).len(), lock(&witness.told).len());
        let now = (moves, asked, told, log.len());
        if served.is_finished() || (waits && (asked <= told || before == Some(now))) {
            break;
        }
        before = Some(now);
        tokio::time::sleep(STILL).await;
    }
    let mut state = lock(&wire.0);
    state.closed = true;
    if let Some(reader) = state.reader.take() {
        reader.wake();
    }
}

/// A chunked body taken apart, loosely: what any server would read.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// The body so far.
    pub(crate) body: Vec<u8>,
    /// Its length on the wire, if it ends here.
    pub(crate) ends: Option<usize>,
    /// It goes on with what is no chunk.
    pub(crate) broken: bool,
}

impl Chunks {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let (mut chunks, mut at) = (Self::default(), 0);
        let line = |at: usize| {
            let rest = bytes.get(at..)?;
            let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
            Some((rest.get(..end)?, at + end + 2))
        };
        while let Some((size, next)) = line(at) {
            let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let Some(size) = size else {
                chunks.broken = true;
                return chunks;
            };
            if size == 0 {
                chunks.ends = (|| {
                    let mut end = next;
                    loop {
                        let (trailer, next) = line(end)?;
                        end = next;
                        if trailer.is_empty() {
                            return Some(end);
                        }
                    }
                })();
                return chunks;
            }
            let data = bytes.get(next..).unwrap_or_default();
            chunks.body.extend_from_slice(data.get(..size).unwrap_or(data));
            at = next.saturating_add(size).saturating_add(2);
        }
        chunks
    }
}
