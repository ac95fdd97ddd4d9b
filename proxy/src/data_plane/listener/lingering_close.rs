//! Lingering close: a connection on which a client still sends is read for a moment before it is closed.
//!
//! Closing a connection with unread bytes resets it, and a response in transit is lost. What is read here is
//! discarded.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// Until the client has seen that it is over.
const WHOLE: Duration = Duration::from_secs(5);
/// Of silence.
const SILENCE: Duration = Duration::from_secs(1);
const BYTES_MAX: usize = 16 << 20;

/// Takes a connection whose request was abandoned before its end.
#[derive(Clone, Debug, Default)]
pub(super) struct UnreadRequest(Arc<Mutex<Option<Stream>>>);

impl UnreadRequest {
    pub(super) fn put(&self, stream: Stream) {
        *self.0.lock() = Some(stream);
    }

    /// Ends the connection, if there is one.
    pub(super) async fn end(self) {
        let left = self.0.lock().take();
        if let Some(stream) = left {
            linger(stream, WHOLE).await;
        }
    }
}

/// Shuts down the write side, and reads until the client closes.
pub(super) async fn linger(mut stream: Stream, whole: Duration) {
    let listen = async {
        stream.flush().await?;
        stream.shutdown().await?;
        let mut rest = vec![0; 16 << 10];
        let mut left = BYTES_MAX;
        while let Ok(read) = timeout(SILENCE, stream.read(&mut rest)).await {
            let read = read?;
            if read == 0 || read >= left {
                break;
            }
            left -= read;
        }
        std::io::Result::Ok(())
    };
    let _ = timeout(whole, listen).await;
}
