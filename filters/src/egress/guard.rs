//! Keeps connections to names that someone else chose out of our own network.
//!
//! A name can resolve to anything. So every address is judged after the lookup, and the connection goes to
//! one that passed.

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::{
    Denial, Label, Now,
    egress::{
        addresses::AddressClass,
        allowlist::domains_above,
        target::{Host, Target},
    },
};

/// Which addresses may be dialled.
#[derive(Debug, PartialEq)]
pub struct Guard {
    own_addresses: Vec<IpNet>,
    private: Vec<Private>,
}

/// Addresses of our own network that a host may have.
#[derive(Debug, PartialEq)]
struct Private {
    host: config::HostPorts,
    /// For every port: the ports on which rules allow calls to it.
    called_on: Vec<u16>,
    addresses: Vec<IpNet>,
    expires: Option<u64>,
}

impl Guard {
    /// From what the operator wrote.
    pub fn new(written: &config::Egress) -> Self {
        let named = written.private.iter().any(|private| private.host.every_port);
        let shipped = if named { config::shipped_hosts() } else { Default::default() };
        let called: Vec<config::HostRule> = match named {
            true => written.rules.iter().flat_map(|r| written.hosts_of(r, &shipped)).collect(),
            false => Vec::new(),
        };
        let on = |host: &config::HostPorts| {
            let fits = called.iter().filter(|called| host.shares_host_with(called));
            fits.map(|called| called.port).collect()
        };
        let private = written.private.iter().map(|private| Private {
            host: private.host.value.clone(),
            called_on: on(&private.host),
            addresses: private.addresses.clone(),
            expires: private.expires.map(config::Date::unix_seconds),
        });
        Self { own_addresses: written.own_addresses.clone(), private: private.collect() }
    }

    /// Permits an address of `target`, the target of a call, that is public or explicitly allowed. `own` are
    /// those of this machine.
    ///
    /// # Errors
    /// Its class, if it may not be dialled.
    pub fn judge(
        &self,
        target: &Target,
        ip: IpAddr,
        own: &[IpAddr],
        now: Now,
    ) -> Result<(), AddressClass> {
        let among = |private: &Private| private.called_on.contains(&target.port);
        self.is_open(target, ip, own, now, among)
    }

    /// `on_port` decides if no port is configured.
    fn is_open(
        &self,
        target: &Target,
        ip: IpAddr,
        own: &[IpAddr],
        now: Now,
        on_port: impl Fn(&Private) -> bool,
    ) -> Result<(), AddressClass> {
        let ours = own.contains(&ip) || self.own_addresses.iter().any(|net| net.contains(&ip));
        let class = match AddressClass::of(ip) {
            AddressClass::Public if ours => AddressClass::Own,
            class => class,
        };
        let on_purpose = || {
            self.private.iter().any(|private| {
                let every_port = private.host.every_port;
                let port = private.host.rule.port == target.port;
                (if every_port { on_port(private) } else { port })
                    && private.allows(target, ip, now)
            })
        };
        if class == AddressClass::Public || on_purpose() { Ok(()) } else { Err(class) }
    }

    /// The addresses that may be dialled for our own requests, on a port that the operator or a previous
    /// response named.
    ///
    /// # Errors
    /// [`Denial::AddressRefused`] if there is none.
    pub fn vet(
        &self,
        target: &Target,
        found: &[IpAddr],
        own: &[IpAddr],
        now: Now,
    ) -> Result<SmallVec<[IpAddr; 4]>, Denial> {
        let mut refused = None;
        let mut passed = SmallVec::new();
        for ip in found {
            match self.is_open(target, *ip, own, now, |_| true) {
                Ok(()) => passed.push(*ip),
                Err(class) => refused = refused.or(Some((*ip, class))),
            }
        }
        if passed.is_empty() { Err(refusal(target, refused)) } else { Ok(passed) }
    }
}

impl Private {
    fn allows(&self, target: &Target, ip: IpAddr, now: Now) -> bool {
        let own = &self.host.rule;
        let host = match &target.host {
            Host::Address(ip) => own.ip() == Some(*ip),
            Host::Name(name) if own.subdomains => {
                domains_above(name).any(|above| above == own.host)
            }
            Host::Name(name) => own.host == **name,
        };
        host && self.addresses.iter().any(|net| net.contains(&ip))
            && self.expires.is_none_or(|at| now.unix_seconds() < at)
    }
}

/// The denial if no address may be dialled: it names the first that was refused.
pub(crate) fn refusal(target: &Target, refused: Option<(IpAddr, AddressClass)>) -> Denial {
    let (ip, class) = refused.unwrap_or(([0, 0, 0, 0].into(), AddressClass::Unspecified));
    Denial::AddressRefused {
        target: Label::lossy(&target.to_string()),
        address: Label::lossy(&ip.to_string()),
        class: class.name(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guard(egress: &str) -> Guard {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{e: {{kind: forward, address: '127.0.0.1:1', plugin: x}}}}\negress:\n{egress}"
        );
        let loaded = config::parse("s.yaml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        Guard::new(&loaded.config.egress)
    }

    fn target(text: &str) -> Target {
        Target::of_connect(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_private_address_is_bound_to_its_host_and_port() {
        let guard = guard(
            "  private: [{host: 'harbor.corp.example:8443', addresses: [10.2.0.0/16]}, {host: '*.lab.example:443', addresses: ['fd00::/8'], expires: 1970-01-02}]\n",
        );
        let check = |host: &str, ip: &str, expected: bool| {
            let now = Now::default();
            let found = guard.judge(&target(host), ip.parse().unwrap(), &[], now).is_ok();
            assert_eq!(found, expected, "{host} {ip}");
        };
        check("harbor.corp.example:8443", "10.2.3.4", true);
        check("harbor.corp.example:443", "10.2.3.4", false);
        check("harbor.corp.example:8443", "10.3.3.4", false);
        check("evil.corp.example:8443", "10.2.3.4", false);
        check("harbor.corp.example:8443", "::ffff:10.2.3.4", false);
        check("harbor.corp.example:8443", "1.1.1.1", true);
        check("a.lab.example:443", "fd00::1", true);
        check("lab.example:443", "fd00::1", false);
        let later = Now::default().plus(Duration::from_secs(86_400));
        let lab = target("a.lab.example:443");
        assert!(guard.judge(&lab, "fd00::1".parse().unwrap(), &[], later).is_err());
    }

    #[test]
    fn without_a_port_a_private_address_is_open_on_the_ports_of_rules_and_to_ourselves() {
        let guard = guard(
            "  rules: [{name: a, to: ['argocd.test:8443', '*.lab.example:81']}, {name: b, to: ['argocd.test:80', github]}]\n  private: [{host: argocd.test, addresses: [127.0.0.1/32]}, {host: a.lab.example, addresses: [10.0.0.0/8]}, {host: idp.test, addresses: [10.0.0.0/8]}]\n",
        );
        let check = |host: &str, ip: &str, called: bool, ourselves: bool| {
            let (target, ip) = (target(host), ip.parse().unwrap());
            let judged = guard.judge(&target, ip, &[], Now::default()).is_ok();
            assert_eq!(judged, called, "{host}");
            assert_eq!(guard.vet(&target, &[ip], &[], Now::default()).is_ok(), ourselves, "{host}");
        };
        check("argocd.test:8443", "127.0.0.1", true, true);
        check("argocd.test:80", "127.0.0.1", true, true);
        check("argocd.test:6379", "127.0.0.1", false, true);
        check("argocd.test:443", "127.0.0.1", false, true);
        check("argocd.test:8443", "127.0.0.2", false, false);
        check("a.lab.example:81", "10.0.0.1", true, true);
        check("b.lab.example:81", "10.0.0.1", false, false);
        check("idp.test:443", "10.0.0.1", false, true);
    }

    #[test]
    fn what_is_ours_is_refused_though_it_looks_public() {
        let guard = guard("  own_addresses: [198.18.0.0/15, 1.1.1.0/24]\n");
        let ips =
            |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|ip| ip.parse().unwrap()).collect() };
        let vet = |found: &[&str]| {
            let own = ips(&["9.9.9.9"]);
            guard.vet(&target("a.example:443"), &ips(found), &own, Now::default())
        };
        assert_eq!(vet(&["1.1.1.1", "8.8.8.8", "9.9.9.9"]).unwrap().to_vec(), ips(&["8.8.8.8"]));
        let refused = vet(&["1.1.1.1", "9.9.9.9"]).unwrap_err();
        assert_eq!(refused.code(), "address_refused");
        assert!(vet(&[]).is_err());
    }
}
