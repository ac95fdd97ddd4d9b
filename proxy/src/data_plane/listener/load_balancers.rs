//! Load balancers that say whose a connection is, before anything else on it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pingora::protocols::{SocketDigest, Stream, l4::socket};
use tokio::time::{Instant, timeout_at};

use super::{
    HeadRefusal, IsBalancer, Limits,
    accept::NotAccepted,
    connection_limits::ConnectionLimits,
    proxy_protocol::{self, Fault, Told},
};

/// Who says whose a connection is, and how many have not yet.
pub(super) struct Balancers {
    is_one: IsBalancer,
    waiting: Arc<ConnectionLimits>,
}

impl Balancers {
    pub(super) fn new(is_one: IsBalancer) -> Self {
        Self { is_one, waiting: Arc::default() }
    }

    /// Whose a connection of `peer` is, as everybody will then know. Not a byte after the header is read.
    pub(super) async fn client(
        &self,
        stream: &mut Stream,
        peer: IpAddr,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<IpAddr, NotAccepted> {
        let refused = |refusal| Err(NotAccepted::Refused(refusal));
        if !(self.is_one)(peer.to_canonical()) {
            return refused(HeadRefusal::ProxyHeaderRefused);
        }
        let Some(_place) = self.waiting.take(peer, limits.connections_max, 0) else {
            return refused(HeadRefusal::ConnectionsExhausted);
        };
        match timeout_at(deadline, proxy_protocol::read(stream)).await {
            Ok(Ok(Told::Client(client))) => {
                note(stream, client);
                Ok(client.ip())
            }
            Ok(Ok(Told::Nobody)) => Ok(peer),
            Ok(Err(Fault::Missing)) => refused(HeadRefusal::ProxyHeaderMissing),
            Ok(Err(Fault::Malformed(why))) => refused(HeadRefusal::ProxyHeaderMalformed(why)),
            Ok(Err(Fault::Gone)) => Err(NotAccepted::Gone),
            Err(_) => refused(HeadRefusal::Timeout),
        }
    }
}

/// What is asked later whose the connection is says the client.
fn note(stream: &mut Stream, client: SocketAddr) {
    let digest = SocketDigest::from_raw_fd(stream.id());
    let _ = digest.peer_addr.set(Some(socket::SocketAddr::Inet(client)));
    stream.set_socket_digest(digest);
}
