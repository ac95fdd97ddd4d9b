//! Events beside exchanges: a change to what governs them, or an operator's request.

use std::net::IpAddr;

use super::Line;
use crate::{Label, Now, checks::switches::Switch};

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A config was loaded, or refused.
    Config {
        /// Why it was loaded: `start`, `files`, `signal`, `admin` or `control`.
        source: &'a str,
        /// Whether it took effect.
        successful: bool,
        /// The digest of the config in force after it.
        digest: &'a str,
        /// The digest of the config in force before it, if there was one.
        previous: Option<&'a str>,
        /// The changes in effect: each a member and its values.
        changes: &'a [String],
        /// What was wrong, or what needs a restart.
        messages: &'a [String],
    },
    /// A breaker changed its position.
    Breaker {
        /// The upstream.
        upstream: &'a str,
        /// The plugin, where several share the upstream.
        plugin: Option<&'a str>,
        /// The host, where several are behind the upstream.
        host: Option<&'a str>,
        /// The part of the upstream that has its own breaker.
        part: Option<&'a str>,
        /// The new position.
        position: &'a str,
        /// Why it is open, or was opened.
        cause: &'a str,
    },
    /// An address of an upstream was taken out of use, or is used again.
    Address {
        /// The upstream.
        upstream: &'a str,
        /// The address, with its port.
        address: &'a str,
        /// Its condition now: `ejected`, `unhealthy` or `healthy`.
        condition: &'a str,
        /// Why, if it is out.
        reason: Option<&'a str>,
        /// Until when, if it was ejected.
        until: Option<Now>,
    },
    /// An operator's switch was set or removed, or has ended.
    Switch {
        /// The switch.
        switch: &'a Switch,
        /// What happened to it.
        change: SwitchChange<'a>,
    },
    /// An issuer's signing keys changed.
    Keys {
        /// The issuer.
        issuer: &'a str,
        /// The plugin that signs, if each has its own keys.
        plugin: Option<&'a str>,
        /// Ids of keys that are new.
        added: &'a [Label],
        /// Ids of keys that are no longer trusted.
        removed: &'a [Label],
    },
    /// A listener serves another certificate.
    Certificate {
        /// The listener.
        listener: &'a str,
        /// Its file.
        file: &'a str,
        /// Its subject.
        subject: &'a str,
        /// Its serial number, in hex.
        serial: &'a str,
        /// Its expiry, in seconds since 1970.
        not_after: i64,
    },
    /// The connection to the shared store was lost, or is back.
    Store {
        /// What happened to it.
        change: StoreChange<'a>,
    },
    /// A request to the admin listener.
    Admin {
        /// The client's address.
        client: Option<IpAddr>,
        /// The method.
        method: &'a str,
        /// The path.
        path: &'a str,
        /// The response status.
        status: u16,
    },
}

/// What happened to the store.
#[derive(Clone, Copy, Debug)]
pub enum StoreChange<'a> {
    /// It is reachable.
    Found {
        /// How many replicas use it.
        replicas: u32,
    },
    /// It is unreachable.
    Lost {
        /// Why.
        cause: &'a str,
        /// How many replicas used it last.
        replicas: u32,
        /// What applies now.
        on_error: &'a str,
    },
}

/// What happened to a switch.
#[derive(Clone, Copy, Debug)]
pub enum SwitchChange<'a> {
    /// It was set.
    Set {
        /// How many WebSockets, streams and calls it cut, if it was set to.
        cut: Option<usize>,
    },
    /// It was removed.
    Removed {
        /// By whom.
        by: &'a str,
    },
    /// It has ended.
    Expired,
}

impl SwitchChange<'_> {
    /// Its name in records and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set { .. } => "set",
            Self::Removed { .. } => "removed",
            Self::Expired => "expired",
        }
    }
}

impl Event<'_> {
    /// Appends it to `out`, as one line.
    pub fn write(&self, out: &mut Vec<u8>, at: Now) {
        let mut line = Line(out);
        line.open();
        line.text("kind", self.kind());
        line.time("time", at.unix);
        match self {
            Self::Config { source, successful, digest, previous, changes, messages } => {
                line.text("source", source);
                line.literal("successful", if *successful { "true" } else { "false" });
                line.text("config", digest);
                line.maybe("previous_config", *previous);
                line.texts("changes", changes);
                line.texts("messages", messages);
            }
            Self::Breaker { upstream, plugin, host, part, position, cause } => {
                line.text("upstream", upstream);
                line.maybe("plugin", *plugin);
                line.maybe("host", *host);
                line.maybe("part", *part);
                line.text("position", position);
                line.text("cause", cause);
            }
            Self::Address { upstream, address, condition, reason, until } => {
                line.text("upstream", upstream);
                line.text("address", address);
                line.text("condition", condition);
                line.maybe("reason", *reason);
                if let Some(until) = until {
                    line.time("until", until.unix);
                }
            }
            Self::Switch { switch, change } => {
                line.text("change", change.name());
                line.number("switch", switch.id);
                line.text("position", switch.position.name());
                for (name, value) in switch.scope.members() {
                    line.text(name, value);
                }
                line.foreign("by", &switch.by);
                line.foreign("reason", &switch.reason);
                line.time("until", switch.until.unix);
                match change {
                    SwitchChange::Set { cut: Some(cut) } => line.number("cut", *cut),
                    SwitchChange::Removed { by } => {
                        line.foreign("removed_by", by);
                    }
                    SwitchChange::Set { cut: None } | SwitchChange::Expired => {}
                }
            }
            Self::Keys { issuer, plugin, added, removed } => {
                line.text("issuer", issuer);
                line.maybe("plugin", *plugin);
                line.list("added", added);
                line.list("removed", removed);
            }
            Self::Certificate { listener, file, subject, serial, not_after } => {
                line.text("listener", listener);
                line.text("file", file);
                line.foreign("subject", subject);
                line.text("serial", serial);
                line.number("not_after", *not_after);
            }
            Self::Store { change: StoreChange::Found { replicas } } => {
                line.text("change", "found");
                line.number("replicas", *replicas);
            }
            Self::Store { change: StoreChange::Lost { cause, replicas, on_error } } => {
                line.text("change", "lost");
                line.text("cause", cause);
                line.number("replicas", *replicas);
                line.text("on_error", on_error);
            }
            Self::Admin { client, method, path, status } => {
                if let Some(client) = client {
                    line.address("client", *client, None);
                }
                line.foreign("method", method);
                line.foreign("path", path);
                line.number("status", *status);
            }
        }
        line.close();
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Breaker { .. } => "breaker",
            Self::Address { .. } => "address",
            Self::Switch { .. } => "switch",
            Self::Keys { .. } => "keys",
            Self::Certificate { .. } => "certificate",
            Self::Store { .. } => "store",
            Self::Admin { .. } => "admin",
        }
    }
}

impl Line<'_> {
    fn texts(&mut self, name: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        self.0.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.0.push(b',');
            }
            self.quoted(value);
        }
        self.0.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &Event<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        event.write(&mut out, Now::default());
        assert!(out.ends_with(b"}\n"));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_a_stranger_sent_cannot_break_out_of_its_line() {
        let path = format!("/\n\"{}", "x".repeat(9000));
        let read = line(&Event::Admin { client: None, method: "GET", path: &path, status: 404 });
        assert_eq!(
            read["path"].as_str().map(|path| (path.len(), &path[..3])),
            Some((2048, "/\n\""))
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let read = line(&Event::Keys {
            issuer: "idp",
            plugin: None,
            added: &[Label::lossy("k1")],
            removed: &[],
        });
        assert_eq!(read["added"][0], "k1");
        assert!(read.get("removed").is_none() && read.get("plugin").is_none());
    }
}
