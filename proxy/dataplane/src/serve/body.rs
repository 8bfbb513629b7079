//! The body of a response on its way to the client: streamed, timed, counted; its end is the end of
//! the request's story.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    lasting::{POLICY_CHANGED, Watch},
    messages::Messages,
    story::Story,
};
use crate::{
    forward::{Lease, remove_forbidden_trailers},
    record,
};

/// Why a response is cut: the client must see that it is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the upstream ended the response early")]
    Upstream,
    #[error("the response took too long")]
    Timeout,
    #[error("the response paused for too long")]
    Idle,
    #[error("the request is permitted no longer")]
    Forbidden,
}

/// See the module.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// An answer of ours, or an upstream's without a body.
    Whole(Option<Bytes>, Option<Story>),
    /// An upstream's.
    Streamed(Box<Streamed>),
}

/// An upstream's body under way.
#[derive(Debug)]
pub(crate) struct Streamed {
    incoming: Incoming,
    lease: Lease,
    story: Option<Story>,
    idle: Duration,
    deadline: Option<Instant>,
    waiting: Option<Instant>,
    bytes: u64,
    messages: Option<Messages>,
    watch: Option<Watch>,
}

impl ReplyBody {
    /// An answer with these bytes.
    pub(crate) fn whole(bytes: Bytes, story: Story) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes), Some(story))
    }

    /// An upstream's body; what holds its connection comes along.
    pub(crate) fn streamed(
        incoming: Incoming,
        mut lease: Lease,
        story: Story,
        (idle, deadline): (Duration, Option<Instant>),
        grpc: bool,
        watch: Option<Watch>,
    ) -> Self {
        if incoming.is_end_stream() {
            lease.give_back();
            return Self::Whole(None, Some(story));
        }
        let messages = grpc.then(Messages::default);
        Self::Streamed(Box::new(Streamed {
            incoming,
            lease,
            story: Some(story),
            idle,
            deadline,
            waiting: None,
            bytes: 0,
            messages,
            watch,
        }))
    }
}

impl Streamed {
    fn pass(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.waiting = None;
        let frame = match frame.into_data() {
            Ok(data) => {
                self.bytes += u64::try_from(data.len()).unwrap_or(0);
                if let Some(messages) = &mut self.messages {
                    messages.count(&data);
                }
                return Frame::data(data);
            }
            Err(frame) => frame,
        };
        match frame.into_trailers() {
            Ok(mut trailers) => {
                remove_forbidden_trailers(&mut trailers);
                if let (Some(story), Some(status)) = (&mut self.story, record::grpc_status(&trailers)) {
                    story.record().grpc_status = Some(status);
                }
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }
    }

    fn end(&mut self) {
        self.lease.give_back();
        if let Some(story) = &mut self.story {
            story.complete();
        }
        self.tell();
    }

    fn cut(&mut self, cut: Cut) -> Cut {
        let (flags, details) = match cut {
            Cut::Upstream => ("UC", "upstream_reset_after_response_started{connection_termination}"),
            Cut::Timeout => ("UT", "response_timeout"),
            Cut::Idle => ("SI", "stream_idle_timeout"),
            Cut::Forbidden => ("-", POLICY_CHANGED),
        };
        if let Some(story) = &mut self.story {
            story.cut(flags, details);
        }
        self.tell();
        cut
    }

    fn tell(&mut self) {
        let messages = self.messages.as_mut().map(|messages| messages.count(&[]));
        if let Some(mut story) = self.story.take() {
            let record = story.record();
            record.response_bytes = self.bytes;
            record.messages.1 = messages.unwrap_or_default();
        }
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let idle = since + self.idle;
        let (deadline, cut) = match self.deadline {
            Some(deadline) if deadline <= idle => (deadline, Cut::Timeout),
            _ => (idle, Cut::Idle),
        };
        self.lease.poll_deadline(deadline, cx).map(|()| cut)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.story.is_none() {
            return Poll::Ready(None);
        }
        match self.watch.as_mut().map(|watch| watch.poll(cx)) {
            None | Some(Poll::Ready(Ok(()))) => {}
            Some(Poll::Ready(Err(_))) => return Poll::Ready(Some(Err(self.cut(Cut::Forbidden)))),
            Some(Poll::Pending) => return self.check_time(cx).map(|cut| Some(Err(self.cut(cut)))),
        }
        match self.lease.poll_frame(&mut self.incoming, cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(self.pass(frame)))),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.cut(Cut::Upstream)))),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => self.check_time(cx).map(|cut| Some(Err(self.cut(cut)))),
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The codec need not ask for the end of a body whose length it knows.
        if self.story.is_some() && self.incoming.is_end_stream() {
            self.end();
        }
        self.tell();
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Whole(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes, _) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Self::Whole(None, Some(story)) = self {
            story.complete();
        }
    }
}
