//! A body whose bytes are counted, and which may not be silent for long.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::Error;

use super::{Sender, head_bytes};

/// Counts what of `inner` goes by.
pub(super) struct Metered<B> {
    inner: B,
    sender: Arc<Sender>,
    /// For how long nothing may come while somebody waits for it.
    silence: Option<Duration>,
    /// When that is over.
    over: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    /// What the guest sends.
    pub fn outgoing(inner: B, sender: Arc<Sender>) -> Self {
        Self { inner, sender, silence: None, over: None }
    }

    /// What the server answers.
    pub fn incoming(inner: B, sender: Arc<Sender>, silence: Duration) -> Self {
        Self { inner, sender, silence: Some(silence), over: None }
    }
}

impl<B: Body<Data = Bytes, Error: Into<Error>> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
            let Some(silence) = this.silence else { return Poll::Pending };
            ready!(this.over.get_or_insert_with(|| Box::pin(sleep(silence))).as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        this.over = None;
        let counted = frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            let data = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            this.sender.count_bytes(data + frame.trailers_ref().map_or(0, head_bytes))?;
            Ok(frame)
        });
        Poll::Ready(counted)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
