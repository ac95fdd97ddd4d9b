//! The calls that a rule is missing for, by who called and where to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use config::{HostRule, Name};
use filters::{Label, egress::hello_fault::HelloFault, target::Target};

use super::records::Record;
use crate::counted;

/// Calls by who called and where to, in a fixed order.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) by: BTreeMap<(Who, Where), Tally>,
    pub(super) left: Omitted,
}

/// Who called, as far as a rule can name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) plugin: Option<Name>,
    pub(super) workspace: Option<Name>,
}

/// A host and its port, as a rule names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Where {
    pub(super) host: String,
    pub(super) port: u16,
}

/// The calls of one plugin and workspace to one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Calls that a rule would allow.
    pub(super) calls: u64,
    /// Those of them that were plain HTTP.
    pub(super) plain: u64,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) callers: Few<Label>,
    pub(super) strengths: BTreeSet<&'static str>,
    pub(super) addresses: Few<IpAddr>,
    /// Refused for their address, or would be: a rule does not help.
    pub(super) by_address: u64,
    /// Calls that were or would be refused for their first bytes, by the fault: a rule does not help.
    pub(super) by_hello: BTreeMap<HelloFault, u64>,
}

/// A few of many.
#[derive(Clone, Debug)]
pub(super) struct Few<T> {
    pub(super) some: BTreeSet<T>,
    pub(super) more: bool,
}

/// What the proposal leaves out, and why.
#[derive(Debug, Default)]
pub(super) struct Omitted {
    /// Records of calls with a name that no rule can contain.
    unwritable: u64,
    /// Calls to hosts beyond [`HOSTS_MAX`].
    beyond: u64,
}

/// The maximum of hosts, counted for each caller, which bounds the memory.
const HOSTS_MAX: usize = 10_000;
/// Callers and addresses that are named.
const FEW: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Host,
    Address,
    Hello(HelloFault),
}

impl Calls {
    /// Adds a record, if it is of a call that was or would be refused.
    pub(super) fn take(&mut self, record: Record) {
        let Some(target) = &record.target else { return };
        let Some(fault) = fault_of(&record, target) else { return };
        let Some(key) = key_of(&record, target) else {
            self.left.unwritable += 1;
            return;
        };
        if self.by.len() >= HOSTS_MAX && !self.by.contains_key(&key) {
            self.left.beyond += 1;
            return;
        }
        self.by.entry(key).or_default().take(&record, fault);
    }
}

fn fault_of(record: &Record, target: &str) -> Option<Fault> {
    let hello = || {
        let (said, name) = (record.hello.as_deref(), record.server_name.as_deref());
        HelloFault::of_record(said, name, record.encrypted_client_hello, target)
    };
    let denied = (record.decision == "deny").then_some(&*record.code);
    // The last check that refused counts: a rule would not help with the address.
    match (denied, record.would_deny.as_deref()) {
        (Some("address_refused"), _) => Some(Fault::Address),
        (Some("hello_refused"), _) => Some(Fault::Hello(hello())),
        (Some("host_refused"), _) | (_, Some("host_refused")) => Some(Fault::Host),
        (_, Some("address_refused")) => Some(Fault::Address),
        (_, Some("hello_refused")) => Some(Fault::Hello(hello())),
        _ => None,
    }
}

/// Everything here is text from outside: it becomes a name or a host of the config, or nothing.
fn key_of(record: &Record, target: &str) -> Option<(Who, Where)> {
    let name = |text: &Option<String>| text.as_deref().map(Name::new).transpose().ok();
    let who = Who { plugin: name(&record.plugin)?, workspace: name(&record.workspace)? };
    let normal = Target::of_connect(target.as_bytes()).ok()?.to_string();
    let rule: HostRule = normal.parse().ok().filter(|rule: &HostRule| !rule.subdomains)?;
    let is_time = |b: u8| b.is_ascii_digit() || b"-:.TZ".contains(&b);
    let timed = (20..=32).contains(&record.time.len()) && record.time.bytes().all(is_time);
    timed.then_some((who, Where { host: rule.host, port: rule.port }))
}

impl Where {
    pub(super) fn rule(&self) -> HostRule {
        HostRule { host: self.host.clone(), subdomains: false, port: self.port }
    }

    pub(super) fn target(&self) -> Option<Target> {
        Target::of_connect(self.rule().to_string().as_bytes()).ok()
    }
}

impl Tally {
    fn take(&mut self, record: &Record, fault: Fault) {
        match fault {
            Fault::Host => self.calls += 1,
            Fault::Address => self.by_address += 1,
            Fault::Hello(fault) => *self.by_hello.entry(fault).or_default() += 1,
        }
        self.plain += u64::from(fault == Fault::Host && record.method != "CONNECT");
        self.seen(&record.time, &record.time);
        if let Some(caller) = &record.caller {
            self.callers.add(Label::lossy(caller));
        }
        self.strengths.insert(match record.identity_strength.as_deref() {
            Some("token") => "token",
            Some("certificate") => "certificate",
            Some("shared_secret") => "shared_secret",
            Some("listener") => "listener",
            _ => "unknown",
        });
        let address: Option<SocketAddr> =
            record.upstream_address.as_deref().and_then(|address| address.parse().ok());
        if let Some(address) = address {
            self.addresses.add(address.ip());
        }
    }

    fn seen(&mut self, first: &str, last: &str) {
        if self.first.is_empty() || *first < *self.first {
            first.clone_into(&mut self.first);
        }
        if *last > *self.last {
            last.clone_into(&mut self.last);
        }
    }

    /// The same host, called by another.
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.plain += other.plain;
        self.by_address += other.by_address;
        for (fault, times) in &other.by_hello {
            *self.by_hello.entry(*fault).or_default() += times;
        }
        self.seen(&other.first, &other.last);
        other.callers.some.iter().for_each(|caller| self.callers.add(caller.clone()));
        self.callers.more |= other.callers.more;
        self.strengths.extend(&other.strengths);
        other.addresses.some.iter().for_each(|ip| self.addresses.add(*ip));
        self.addresses.more |= other.addresses.more;
    }
}

impl<T: Ord> Few<T> {
    fn add(&mut self, one: T) {
        // The first ones in sorted order are stored, whatever order they are added in.
        self.some.insert(one);
        if self.some.len() > FEW {
            self.some.pop_last();
            self.more = true;
        }
    }
}

impl<T: Ord + std::fmt::Display> std::fmt::Display for Few<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, one) in self.some.iter().enumerate() {
            write!(f, "{}{one}", if index > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.more { " and more" } else { "" })
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { some: BTreeSet::new(), more: false }
    }
}

impl Omitted {
    /// Reports on standard error what is left out.
    pub(super) fn report(&self) {
        if self.unwritable > 0 {
            let records = counted(self.unwritable, "record");
            crate::say::err(format_args!(
                "left out, invalid host, plugin, workspace or time: {records}"
            ));
        }
        if self.beyond > 0 {
            let calls = counted(self.beyond, "call");
            crate::say::err(format_args!(
                "left out, over the limit of {HOSTS_MAX} hosts: {calls}; use fewer files"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(target: &str) -> Record {
        Record {
            time: "2026-11-24T12:00:00.000000Z".to_owned(),
            target: Some(target.to_owned()),
            decision: "deny".to_owned(),
            code: "host_refused".to_owned(),
            ..Record::default()
        }
    }

    #[test]
    fn text_that_is_no_host_or_name_gets_into_nothing() {
        let mut calls = Calls::default();
        for target in [
            "a.example:443\n  - evil.example:443",
            "\"]} # :443",
            "*.example.com:443",
            "user@a.example:443",
            "2130706433:443",
            "under_score.example:443",
            "localhost:443",
            "",
        ] {
            calls.take(refused(target));
        }
        calls.take(Record { plugin: Some("a\n- b".to_owned()), ..refused("a.example:443") });
        calls.take(Record { workspace: Some("]".to_owned()), ..refused("a.example:443") });
        calls.take(Record { time: "now\n".to_owned(), ..refused("a.example:443") });
        assert!(calls.by.is_empty(), "{calls:?}");
        assert_eq!(calls.left.unwritable, 11);
    }

    #[test]
    fn calls_that_a_rule_does_not_help_are_reported_separately() {
        let check = |decision: &str, code: &str, would_deny: Option<&str>| {
            let would_deny = would_deny.map(str::to_owned);
            let (decision, code) = (decision.to_owned(), code.to_owned());
            let mut calls = Calls::default();
            calls.take(Record { decision, code, would_deny, ..refused("a.example:443") });
            let told = calls.by.into_values().next();
            told.map(|t| (t.calls, t.by_address, t.by_hello.into_values().sum::<u64>()))
        };
        assert_eq!(check("allow", "ok", None), None);
        assert_eq!(check("allow", "ok", Some("host_refused")), Some((1, 0, 0)));
        assert_eq!(check("deny", "host_refused", None), Some((1, 0, 0)));
        assert_eq!(check("deny", "host_unresolved", Some("host_refused")), Some((1, 0, 0)));
        assert_eq!(check("deny", "address_refused", Some("host_refused")), Some((0, 1, 0)));
        assert_eq!(check("allow", "ok", Some("address_refused")), Some((0, 1, 0)));
        assert_eq!(check("deny", "hello_refused", None), Some((0, 0, 1)));
        assert_eq!(check("deny", "rate_limited", None), None);
    }

    #[test]
    fn each_kind_of_a_first_message_has_the_sentence_of_its_denial() {
        let check = |hello: &str, name: Option<&str>, encrypted_client_hello, expected: &str| {
            let mut calls = Calls::default();
            calls.take(Record {
                code: "hello_refused".to_owned(),
                hello: Some(hello.to_owned()),
                server_name: name.map(str::to_owned),
                encrypted_client_hello,
                ..refused("a.example:443")
            });
            let by_hello = calls.by.into_values().next().unwrap().by_hello;
            let told: Vec<_> = by_hello.into_keys().map(HelloFault::sentence).collect();
            assert_eq!(told, [expected]);
        };
        check("tls", None, false, "it has no server name");
        check("tls", Some("b.example"), false, "its server name is not the requested host");
        check("tls", Some("front.example"), true, "the server name is encrypted");
        check("not_tls", None, false, "it is not TLS");
        check("malformed", None, false, "it is not a readable TLS ClientHello");
    }

    #[test]
    fn the_hosts_of_a_flood_are_bounded_and_the_rest_is_counted() {
        let mut calls = Calls::default();
        for n in 0..HOSTS_MAX + 7 {
            calls.take(refused(&format!("h{n}.example:443")));
        }
        calls.take(refused("h1.example:443"));
        assert_eq!((calls.by.len(), calls.left.beyond), (HOSTS_MAX, 7));
        for n in 0..100 {
            let caller = Some(format!("caller-{n:03}\n"));
            calls.take(Record { caller, ..refused("h1.example:443") });
        }
        let tally = calls.by.values().find(|tally| tally.calls > 50).unwrap();
        assert_eq!(
            tally.callers.to_string(),
            "caller-000, caller-001, caller-002, caller-003, caller-004 and more"
        );
    }
}
