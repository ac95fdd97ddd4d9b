//! Exchanges that continue after their client has disconnected: disconnecting does not undo an action that
//! was sent, and its outcome must be recorded.
//!
//! Pingora ends an exchange when its client disconnects. So the disconnect is hidden from it: a lost client
//! looks like one that sends nothing and reads everything.

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
    /// The exchange continues without its client.
    Detachable,
    /// The client has disconnected, and the exchange continues.
    Disconnected,
}

/// Runs one exchange.
pub(crate) async fn exchange<T>(exchange: impl Future<Output = T>) -> T {
    CLIENT.scope(Cell::new(Client::Attends), exchange).await
}

/// From now on the exchange continues without its client, once the request is complete.
pub(crate) fn begin() {
    let _ = CLIENT.try_with(|client| client.set(Client::Detachable));
}

/// Pingora's session of an HTTP/2 stream: it does not end the exchange when the client disconnects, lingers
/// if the response precedes the end of the request, and is supervised while it stalls.
pub(crate) fn session(stream: http2::Stream) -> ServerSession {
    stream::session(stream)
}

/// Reports that the client has disconnected. Returns whether the exchange continues.
pub(crate) fn lost() -> bool {
    let goes_on = CLIENT.try_with(|client| {
        let goes_on = client.get() != Client::Attends;
        if goes_on {
            client.set(Client::Disconnected);
        }
        goes_on
    });
    goes_on.unwrap_or(false)
}

/// Whether the exchange continues without its client.
pub(crate) fn is() -> bool {
    CLIENT.try_with(|client| client.get() == Client::Disconnected).unwrap_or(false)
}
