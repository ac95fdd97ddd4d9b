//! An HTTP/2 connection with a deadline for its preface, for which Pingora waits forever, and with
//! inspection of its frames.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use pingora::protocols::Stream;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use super::{h2_frames::Frames, wrapped_stream::Reading};

/// Passes everything through, but fails if the preface is late.
#[derive(Debug)]
pub(super) struct PrefaceDeadline {
    waiting: Option<Pin<Box<Sleep>>>,
    /// How much of the preface has not arrived yet.
    missing: usize,
    late: Arc<AtomicBool>,
    frames: Frames,
    /// The replacement to read next.
    replacement: Bytes,
}

impl PrefaceDeadline {
    /// `late` becomes true if the preface does not arrive in time.
    pub(super) fn new(patience: Duration, late: Arc<AtomicBool>) -> Self {
        Self {
            waiting: Some(Box::pin(sleep(patience))),
            missing: PREFACE,
            late,
            frames: Frames::new(),
            replacement: Bytes::new(),
        }
    }

    /// Reads the received bytes, or their replacement.
    fn poll_frames(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.replacement.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
            let received = &buf.filled()[before..];
            if received.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match self.frames.inspect(received) {
                Ok(None) => return Poll::Ready(Ok(())),
                Ok(Some(replacement)) => self.replacement = replacement.into(),
                Err(why) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
                }
            }
            buf.set_filled(before);
        }
        let here = self.replacement.len().min(buf.remaining());
        buf.put_slice(&self.replacement.split_to(here));
        Poll::Ready(Ok(()))
    }
}

/// `PRI * HTTP/2.0 SM` with its line ends, and the header of the SETTINGS frame after it.
const PREFACE: usize = 24 + 9;

impl Reading for PrefaceDeadline {
    fn poll_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.poll_frames(inner, cx, buf);
        let Some(waiting) = &mut self.waiting else { return polled };
        // Counted, because it may arrive in pieces.
        self.missing = self.missing.saturating_sub(buf.filled().len() - before);
        if self.missing == 0 {
            self.waiting = None;
            return polled;
        }
        match (polled, waiting.as_mut().poll(cx)) {
            (Poll::Pending, Poll::Ready(())) => {
                self.late.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (polled, _) => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::timeout,
    };

    use crate::data_plane::listener::{h2_preface::*, wrapped_stream::WrappedStream};

    const SHORT: Duration = Duration::from_millis(20);

    /// Sends `pieces`, one after the other; whether the stream fails after them.
    async fn fails_after(pieces: &[&[u8]]) -> bool {
        let (mut client, server) = duplex(1024);
        let late = Arc::new(AtomicBool::new(false));
        let reading = PrefaceDeadline::new(SHORT, Arc::clone(&late));
        let mut guarded = WrappedStream { inner: Box::new(server), reading };
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        let mut read = Vec::new();
        let failed = tokio::select! {
            () = send => unreachable!("it goes on for ever"),
            failed = timeout(SHORT * 5, guarded.read_to_end(&mut read)) => failed,
        };
        assert_eq!(failed.is_ok(), late.load(Ordering::Relaxed));
        matches!(failed, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn a_preface_may_arrive_in_pieces_and_silence_after_it_is_fine() {
        assert!(!fails_after(&[&[b'x'; PREFACE]]).await);
        assert!(!fails_after(&[b"x".as_slice(); PREFACE]).await);
    }

    #[tokio::test]
    async fn a_preface_that_is_never_whole_ends_the_connection() {
        assert!(fails_after(&[]).await);
        assert!(fails_after(&[b"x".as_slice(); PREFACE - 1]).await);
    }
}
