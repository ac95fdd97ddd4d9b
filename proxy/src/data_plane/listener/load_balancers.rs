//! Load balancers that send a client's address ahead of its connection (PROXY protocol).

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
    proxy_protocol::{self, Fault, Header},
};

/// The load balancers, and the number of connections whose header has not arrived.
pub(super) struct Balancers {
    is_one: IsBalancer,
    waiting: Arc<ConnectionLimits>,
}

impl Balancers {
    pub(super) fn new(is_one: IsBalancer) -> Self {
        Self { is_one, waiting: Arc::default() }
    }

    /// Reads and stores the client address of a connection of `peer`. Reads not a byte beyond the header.
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
            Ok(Ok(Header::Client(client))) => {
                note(stream, client);
                Ok(client.ip())
            }
            Ok(Ok(Header::Local)) => Ok(peer),
            Ok(Err(Fault::Missing)) => refused(HeadRefusal::ProxyHeaderMissing),
            Ok(Err(Fault::Malformed(why))) => refused(HeadRefusal::ProxyHeaderMalformed(why)),
            Ok(Err(Fault::Closed)) => Err(NotAccepted::Closed),
            Err(_) => refused(HeadRefusal::Timeout),
        }
    }
}

/// Later lookups of the connection's peer return the client.
fn note(stream: &mut Stream, client: SocketAddr) {
    let digest = SocketDigest::from_raw_fd(stream.id());
    let _ = digest.peer_addr.set(Some(socket::SocketAddr::Inet(client)));
    stream.set_socket_digest(digest);
}
