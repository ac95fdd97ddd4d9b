//! How a connection ends on which a client still sends: it is listened to for a moment.
//!
//! Closed with bytes unread, a connection is reset, and the answer that was on its way is lost. What is
//! read here is nobody's request.

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

/// Where a connection is put whose request was given up before its end.
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

/// Says that nothing more will come, and listens until the client has understood.
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
