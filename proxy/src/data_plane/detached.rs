//! Exchanges that go on when their client has gone: an action that was sent is not taken back by hanging
//! up, and what came of it belongs on record.
//!
//! Pingora ends an exchange whose client it finds gone. So it is not told: a lost client is, from then
//! on, one that says nothing and takes everything.

mod stream;

use std::cell::Cell;

use pingora::protocols::http::ServerSession;

use crate::data_plane::http2;

tokio::task_local! {
    /// Of a task's exchange.
    static CLIENT: Cell<Client>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// The exchange ends with it.
    Attends,
    /// The exchange goes on without it.
    MayGo,
    /// It is gone, and the exchange goes on.
    Gone,
}

/// Runs one exchange.
pub(crate) async fn exchange<T>(exchange: impl Future<Output = T>) -> T {
    CLIENT.scope(Cell::new(Client::Attends), exchange).await
}

/// From now on the exchange goes on without its client, once all of the request is there.
pub(crate) fn begin() {
    let _ = CLIENT.try_with(|client| client.set(Client::MayGo));
}

/// Pingora's session of a stream of HTTP/2: one that does not end the exchange when its client goes, that ends
/// in its own time if it is answered before its request has ended, and that is looked after while it stands still.
pub(crate) fn session(stream: http2::Stream) -> ServerSession {
    stream::session(stream)
}

/// Says that the client is gone. Whether the exchange goes on all the same.
pub(crate) fn lost() -> bool {
    let goes_on = CLIENT.try_with(|client| {
        let goes_on = client.get() != Client::Attends;
        if goes_on {
            client.set(Client::Gone);
        }
        goes_on
    });
    goes_on.unwrap_or(false)
}

/// Whether the exchange goes on without its client.
pub(crate) fn is() -> bool {
    CLIENT.try_with(|client| client.get() == Client::Gone).unwrap_or(false)
}
