//! A connection to an upstream that Pingora does not make itself.

use std::{io, time::Duration};

use pingora::{Error, ErrorType, Result, protocols::l4::socket::SocketAddr};

use crate::net::{
    dial,
    parent::{Connection, Tunnelling},
};

/// How to connect.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) patience: Duration,
    /// The proxy that the upstream is behind.
    pub(crate) through: Option<Tunnelling>,
}

impl Transport {
    pub(crate) async fn connect(&self, address: &SocketAddr) -> Result<Connection> {
        if let Some(through) = &self.through {
            return through.tunnel(address, self.patience).await;
        }
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectNoRoute, "not an internet address");
        };
        let reached = dial::reach(*address, self.patience).await;
        reached.map(Connection::from).or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                Error::e_because(ErrorType::ConnectRefused, "upstream", error)
            }
            io::ErrorKind::TimedOut => Error::e_explain(ErrorType::ConnectTimedout, "upstream"),
            _ => Error::e_because(ErrorType::ConnectError, "upstream", error),
        })
    }
}
