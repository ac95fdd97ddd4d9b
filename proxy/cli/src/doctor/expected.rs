//! What may be connected to directly: the database, for example.

use std::{net::SocketAddr, str::FromStr};

use ipnet::IpNet;

use proxy::net::dial::Dial;

/// An allowed direct connection, as written: a host or a network, and a port.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exception {
    host: String,
    port: u16,
}

/// What may be connected to directly, as networks.
#[derive(Debug, Default)]
pub(super) struct Expected(Vec<(IpNet, u16)>);

impl FromStr for Exception {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_debug();
        let wrong =
            || format!("`{shown}` has no port; write `db.example:5432` or `10.2.0.0/16:5432`");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if inner.is_none() && host.contains(':') {
            return Err(format!(
                "`{shown}`: an IPv6 address needs brackets; write `[{host}]:{port}`"
            ));
        }
        let host = inner.unwrap_or(host);
        if host.is_empty() {
            return Err(format!("`{shown}` has no host; write `db.example:{port}`"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Expected {
    /// Resolves the names, once.
    ///
    /// # Errors
    /// If one has no address.
    pub(super) async fn resolve(exceptions: &[Exception], dial: &Dial) -> Result<Self, String> {
        let mut all = Vec::new();
        for Exception { host, port } in exceptions {
            if let Ok(net) = host.parse::<IpNet>() {
                all.push((net, *port));
                continue;
            }
            let found = dial.addresses(host, *port).await;
            let found = found.map_err(|error| format!("--expect {host}:{port}: {error}"))?;
            all.extend(found.into_iter().map(|address| (address.ip().into(), *port)));
        }
        Ok(Self(all))
    }

    pub(super) fn has(&self, remote: SocketAddr) -> bool {
        self.0.iter().any(|(net, port)| *port == remote.port() && net.contains(&remote.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_expected_is_a_host_or_a_network_on_one_port() {
        let exceptions = ["10.2.0.0/16:5432", "192.0.2.1:443", "[fd00::/8]:5432", "localhost:80"];
        let exceptions = exceptions.map(|text| text.parse().unwrap());
        let expected = Expected::resolve(&exceptions, &Dial::default()).await.unwrap();
        let check = |remote: &str, has: bool| {
            assert_eq!(expected.has(remote.parse().unwrap()), has, "{remote}");
        };
        check("10.2.3.4:5432", true);
        check("10.2.3.4:443", false);
        check("10.3.3.4:5432", false);
        check("192.0.2.1:443", true);
        check("[fd00::7]:5432", true);
        check("127.0.0.1:80", true);
    }

    #[test]
    fn an_invalid_exception_is_reported_with_what_to_write() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<Exception>().unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("db.example", "write `db.example:5432`");
        check("db.example:0", "no port");
        check("db.example:x\n", "no port");
        check("fd00::1:5432", "write `[fd00::1]:5432`");
        check(":5432", "no host");
    }
}
