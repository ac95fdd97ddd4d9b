//! A stream whose first bytes must come in time. Pingora waits for an HTTP/2 preface for ever.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use pingora::protocols::Stream;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use super::through::Reading;

/// Passes everything through, but fails if the preface takes too long.
#[derive(Debug)]
pub(super) struct Guard {
    waiting: Option<Pin<Box<Sleep>>>,
    /// How much of the preface is still to come.
    missing: usize,
    late: Arc<AtomicBool>,
}

impl Guard {
    /// `late` becomes true if the preface does not come in time.
    pub(super) fn new(patience: Duration, late: Arc<AtomicBool>) -> Self {
        Self { waiting: Some(Box::pin(sleep(patience))), missing: PREFACE, late }
    }
}

/// `PRI * HTTP/2.0 SM` with its line ends, and the header of the SETTINGS frame after it.
const PREFACE: usize = 24 + 9;

impl Reading for Guard {
    fn poll_read(
        &mut self,
        inner: &mut Stream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(inner).poll_read(cx, buf);
        let Some(waiting) = &mut self.waiting else { return polled };
        // Counted, not taken for granted: it may come in pieces.
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

    use super::{super::through::Through, *};

    const SHORT: Duration = Duration::from_millis(20);

    /// Sends `pieces`, each read before the next; whether the stream fails after them.
    async fn fails_after(pieces: &[&[u8]]) -> bool {
        let (mut client, server) = duplex(1024);
        let late = Arc::new(AtomicBool::new(false));
        let reading = Guard::new(SHORT, Arc::clone(&late));
        let mut guarded = Through { inner: Box::new(server), reading };
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            guarded.read_exact(&mut vec![0; piece.len()]).await.unwrap();
        }
        let failed = timeout(SHORT * 5, guarded.read_u8()).await;
        assert_eq!(failed.is_ok(), late.load(Ordering::Relaxed));
        matches!(failed, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces_and_silence_after_it_is_fine() {
        assert!(!fails_after(&[&[b'x'; PREFACE]]).await);
        assert!(!fails_after(&[b"x".as_slice(); PREFACE]).await);
    }

    #[tokio::test]
    async fn a_preface_that_is_never_whole_ends_the_connection() {
        assert!(fails_after(&[]).await);
        assert!(fails_after(&[b"x".as_slice(); PREFACE - 1]).await);
    }
}
