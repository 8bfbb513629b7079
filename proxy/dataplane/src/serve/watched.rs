//! HTTP/2 streams whose client grants no window: the codec then asks for no more of the response,
//! so nobody would ever look at the stream again, and it would keep its place among the requests
//! (RFC 9113 §10.5 names the attack). Each stream is watched from outside of the codec instead.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::guard::poll_deadline;

tokio::task_local! {
    /// Whether the stream of this task has its response, and only its client can hold it up.
    static RESPONDING: Arc<AtomicBool>;
}

/// The stream of this task has its response. Nothing happens on HTTP/1, which has no such task.
pub(super) fn responds() {
    let _ = RESPONDING.try_with(|responding| responding.store(true, Ordering::Relaxed));
}

/// Runs a stream to its end; or, once it has its response, until nothing has moved it for `pause`:
/// then it is dropped, which resets it.
pub(super) async fn watch<F: Future>(stream: F, pause: Duration) {
    let responding = Arc::new(AtomicBool::new(false));
    let watched = {
        let responding = Arc::clone(&responding);
        async move {
            let mut stream = pin!(stream);
            let mut sleep: Option<Pin<Box<Sleep>>> = None;
            let mut moved = Instant::now();
            poll_fn(|cx| {
                let overdue = responding.load(Ordering::Relaxed)
                    && poll_deadline(&mut sleep, moved + pause, cx).is_ready();
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if overdue {
                    tracing::debug!("an HTTP/2 stream whose client does not read is reset");
                    return Poll::Ready(());
                }
                moved = Instant::now();
                if responding.load(Ordering::Relaxed)
                    && poll_deadline(&mut sleep, moved + pause, cx).is_ready()
                {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            })
            .await;
        }
    };
    RESPONDING.scope(responding, watched).await;
}
