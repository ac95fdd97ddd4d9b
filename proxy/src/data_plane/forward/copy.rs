//! Copies both ways between two connections, and keeps no memory while both are silent.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes forwarded so far, each way.
#[derive(Default)]
pub(super) struct Moved {
    /// From the client.
    pub(super) out: AtomicU64,
    /// To the client.
    pub(super) back: AtomicU64,
}

impl Moved {
    pub(super) fn all(&self) -> u64 {
        self.out.load(Ordering::Relaxed) + self.back.load(Ordering::Relaxed)
    }
}

/// Bytes are read into this buffer, which all tunnels of a thread share. What the other side does not take
/// immediately is buffered by the tunnel itself.
const SCRATCH: usize = 64 << 10;

thread_local! {
    static SCRATCH_OF_THREAD: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// What was read and not written yet, from `at`.
    rest: Vec<u8>,
    at: usize,
    unflushed: bool,
    ended: bool,
}

/// Copies until both sides have ended, each half on its own. `first` goes out before all else.
pub(super) async fn both_ways<C, S>(
    client: &mut C,
    server: &mut S,
    first: Vec<u8>,
    moved: &Moved,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    moved.out.fetch_add(first.len() as u64, Ordering::Relaxed);
    let mut out = Direction { rest: first, ..Direction::default() };
    let mut back = Direction::default();
    let (mut out_done, mut back_done) = (false, false);
    poll_fn(|cx| {
        if !out_done {
            out_done = out.poll(client, server, &moved.out, cx)?.is_ready();
        }
        if !back_done {
            back_done = back.poll(server, client, &moved.back, cx)?.is_ready();
        }
        if out_done && back_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

impl Direction {
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        from: &mut R,
        to: &mut W,
        moved: &AtomicU64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.at < self.rest.len() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.at..]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.at += written;
                self.unflushed = true;
            }
            if !self.rest.is_empty() {
                self.rest = Vec::new();
                self.at = 0;
            }
            if self.ended {
                return Pin::new(&mut *to).poll_shutdown(cx);
            }
            let read = SCRATCH_OF_THREAD.with_borrow_mut(|scratch| {
                let mut space = ReadBuf::new(scratch);
                match Pin::new(&mut *from).poll_read(cx, &mut space) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {}
                }
                let came = space.filled();
                self.ended = came.is_empty();
                moved.fetch_add(came.len() as u64, Ordering::Relaxed);
                let taken = match Pin::new(&mut *to).poll_write(cx, came) {
                    _ if came.is_empty() => 0,
                    Poll::Ready(taken) => taken?,
                    Poll::Pending => 0,
                };
                self.unflushed |= taken > 0;
                self.rest.extend_from_slice(&came[taken..]);
                Poll::Ready(Ok(()))
            });
            match read {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    // Nothing more to read for now: flush what is buffered.
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_half_ends_on_its_own_and_no_byte_is_lost() {
        // Small pipes, so that much has to wait.
        let (mut client, mut client_end) = duplex(1000);
        let (mut server, mut server_end) = duplex(777);
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let moved = Moved::default();
        let copying = both_ways(&mut client_end, &mut server_end, b"first".to_vec(), &moved);
        let asking = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answering = async {
            let mut asked = Vec::new();
            // The end of the client's half is forwarded while the other half stays open.
            server.read_to_end(&mut asked).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            asked
        };
        let (copied, answer, asked) = tokio::join!(copying, asking, answering);
        copied.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(asked, [b"first", &sent[..]].concat());
        assert_eq!(moved.all(), 5 + 300_000 + 6);
    }
}
