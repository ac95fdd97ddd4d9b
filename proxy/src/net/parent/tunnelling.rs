//! How Pingora connects to an upstream through a parent proxy.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    connectors::l4::Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
};

use super::{Connection, Fault, Parent};
use crate::net::dial::Dial;

/// Connects to one host in tunnels through a proxy.
#[derive(Debug)]
pub(crate) struct Tunnelling {
    pub(crate) parent: Arc<Parent>,
    pub(crate) dial: Dial,
    /// The target of the tunnel.
    pub(crate) host: (String, u16),
}

/// Pingora's own limit, an upstream's `timeouts.connect`, usually ends it before.
const PATIENCE: Duration = Duration::from_secs(30);

impl Tunnelling {
    /// A tunnel by way of this address of the proxy's.
    pub(crate) async fn tunnel(&self, at: &SocketAddr, patience: Duration) -> Result<Connection> {
        let Some(at) = at.as_inet() else {
            return Error::e_explain(ErrorType::ConnectNoRoute, "not an internet address");
        };
        let host = (&*self.host.0, self.host.1);
        let tunnel = self.parent.tunnel_by(&self.dial, *at, host, patience).await;
        tunnel.map_err(|fault| {
            let kind = match &fault {
                Fault::Late(_) => ErrorType::ConnectTimedout,
                _ => ErrorType::ConnectProxyFailure,
            };
            Error::because(kind, "parent proxy", fault)
        })
    }
}

#[async_trait]
impl Connect for Tunnelling {
    async fn connect(&self, at: &SocketAddr) -> Result<Stream> {
        // A bare connection can be used again, for it has the proxy's address.
        match self.tunnel(at, PATIENCE).await?.into_tcp() {
            Ok((tcp, came)) => {
                let mut stream = Stream::from(tcp);
                stream.rewind(&came);
                Ok(stream)
            }
            Err(within_tls) => Ok(VirtualSocketStream::new(Box::new(within_tls)).into()),
        }
    }
}

impl VirtualSocket for Connection {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
