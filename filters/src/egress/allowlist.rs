//! Which callers may call which hosts. Looked up by name, so a thousand hosts cost as much as ten.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::{
    Denial, Label, Now,
    egress::target::{Host, Target},
};

/// Which callers may call which hosts.
#[derive(Debug, Default)]
pub struct Allowlist {
    names: HashMap<String, Vec<Entry>>,
    /// By parent domain.
    domains: HashMap<String, Vec<Entry>>,
    addresses: HashMap<IpAddr, Vec<Entry>>,
}

/// A rule that lets some callers call some hosts.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: Label,
    /// Where the operator wrote it.
    pub place: Arc<str>,
    /// Whether a call that only this rule allows is recorded with `would_deny`.
    pub report_only: bool,
    plugins: Vec<Label>,
    workspaces: Vec<Label>,
    /// In seconds since 1970.
    expires: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    port: u16,
    rule: Arc<Rule>,
}

impl Allowlist {
    /// From what the operator wrote.
    pub fn new(written: &config::Egress) -> Self {
        let mut all = Self::default();
        let shipped = config::shipped_hosts();
        for located in &written.rules {
            let rule = Arc::new(Rule::new(located));
            for host in written.hosts_of(located, &shipped) {
                all.add(&host, &rule);
            }
        }
        all
    }

    fn add(&mut self, host: &config::HostRule, rule: &Arc<Rule>) {
        let entries = match host.ip() {
            Some(ip) => self.addresses.entry(ip).or_default(),
            None if host.subdomains => self.domains.entry(host.host.clone()).or_default(),
            None => self.names.entry(host.host.clone()).or_default(),
        };
        entries.push(Entry { port: host.port, rule: Arc::clone(rule) });
    }

    /// The rule that allows a caller to call `target`; a report-only one if there is no other.
    ///
    /// # Errors
    /// [`Denial::HostRefused`] if there is none.
    pub fn allow(
        &self,
        target: &Target,
        plugin: Option<&Label>,
        workspace: Option<&Label>,
        now: Now,
    ) -> Result<&Arc<Rule>, Denial> {
        let mut reporting = None;
        let mut known = false;
        for entry in self.entries(&target.host).filter(|entry| entry.port == target.port) {
            if entry.rule.expires.is_some_and(|at| at <= now.unix_seconds()) {
                continue;
            }
            known = true;
            if !entry.rule.is_for(plugin, workspace) {
                continue;
            }
            if !entry.rule.report_only {
                return Ok(&entry.rule);
            }
            reporting = reporting.or(Some(&entry.rule));
        }
        reporting.ok_or_else(|| Denial::HostRefused {
            target: Label::lossy(&target.to_string()),
            plugin: plugin.cloned(),
            for_others: known,
        })
    }

    fn entries(&self, host: &Host) -> impl Iterator<Item = &Entry> {
        let (exact, name) = match host {
            Host::Address(ip) => (self.addresses.get(ip), ""),
            Host::Name(name) => (self.names.get(&**name), &**name),
        };
        let below = domains_above(name).filter_map(|domain| self.domains.get(domain));
        exact.into_iter().chain(below).flatten()
    }
}

impl Rule {
    fn new(written: &config::Located<config::EgressRule>) -> Self {
        Self {
            name: (&written.name).into(),
            place: written.place.to_string().into(),
            report_only: written.report_only,
            plugins: written.plugins.iter().map(Label::from).collect(),
            workspaces: written.workspaces.iter().map(|w| Label::from(&w.value)).collect(),
            expires: written.expires.map(config::Date::unix_seconds),
        }
    }

    fn is_for(&self, plugin: Option<&Label>, workspace: Option<&Label>) -> bool {
        let among = |wanted: &[Label], own: Option<&Label>| {
            wanted.is_empty() || own.is_some_and(|own| wanted.contains(own))
        };
        among(&self.plugins, plugin) && among(&self.workspaces, workspace)
    }
}

/// The domains that a name is below, the nearest first. Only whole labels count: `evilgithub.com`
/// is not below `github.com`.
pub(crate) fn domains_above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn allowlist(egress: &str) -> Allowlist {
        let text = format!(
            "version: stagedoor/v1\nlisteners: {{e: {{kind: forward, address: '127.0.0.1:1', plugin: x}}}}\nworkspaces: {{named: {{payments: {{}}, web: {{}}}}}}\negress:\n{egress}"
        );
        let loaded = config::parse("s.yaml", &text).unwrap_or_else(|problems| panic!("{problems}"));
        Allowlist::new(&loaded.config.egress)
    }

    fn target(text: &str) -> Target {
        Target::of_connect(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_wildcard_covers_whole_labels_below_its_domain() {
        let list = allowlist("  rules: [{name: r, to: ['*.github.com', api.example.com]}]\n");
        let check = |text: &str, expected: bool| {
            let allowed = list.allow(&target(text), None, None, Now::default()).is_ok();
            assert_eq!(allowed, expected, "{text}");
        };
        check("api.github.com:443", true);
        check("a.b.github.com:443", true);
        check("API.GitHub.com.:443", true);
        check("github.com:443", false); // the domain is not below itself
        check("evilgithub.com:443", false);
        check("github.com.evil.com:443", false);
        check("api.github.com:80", false);
        check("api.example.com:443", true);
        check("b.api.example.com:443", false);
        check("xn--gthub-n4a.com:443", false);
    }

    #[test]
    fn a_rule_is_for_the_plugins_and_workspaces_that_it_names_until_it_expires() {
        let list = allowlist(
            "  rules:
  - {name: catalog, to: [github], plugins: [catalog]}
  - {name: payments, to: [github], workspaces: [payments], expires: 1970-01-02}
  - {name: wide, to: ['*.vendor.example'], report_only: true}
  - {name: narrow, to: [api.vendor.example], plugins: [catalog]}
",
        );
        let label = |text: &str| Label::lossy(text);
        let ask = |host: &str, plugin: &str, workspace: &str, day: u64| {
            let now = Now::default().plus(Duration::from_secs(day * 86_400));
            let (plugin, workspace) = (label(plugin), label(workspace));
            let allowed = list.allow(&target(host), Some(&plugin), Some(&workspace), now);
            allowed.map(|rule| (rule.name.to_string(), rule.report_only)).ok()
        };
        let rule = |name: &str, reports| Some((name.to_owned(), reports));
        assert_eq!(ask("github.com:443", "catalog", "web", 0), rule("catalog", false));
        assert_eq!(ask("github.com:443", "argocd", "web", 0), None);
        assert_eq!(ask("github.com:443", "argocd", "payments", 0), rule("payments", false));
        assert_eq!(ask("github.com:443", "argocd", "payments", 1), None);
        assert_eq!(ask("x.vendor.example:443", "argocd", "web", 0), rule("wide", true));
        assert_eq!(ask("api.vendor.example:443", "argocd", "web", 0), rule("wide", true));
        assert_eq!(ask("api.vendor.example:443", "catalog", "web", 0), rule("narrow", false));
    }

    proptest! {
        #[test]
        fn a_domain_rule_never_covers_a_sibling(before in "[a-z]{1,10}", label in "[a-z]{1,10}") {
            let list = allowlist("  rules: [{name: r, to: ['*.github.com']}]\n");
            let ask = |host: String| {
                list.allow(&target(&format!("{host}:443")), None, None, Now::default()).is_ok()
            };
            let sibling = format!("{before}github.com");
            prop_assert!(!ask(sibling));
            let elsewhere = format!("github.com.{label}x");
            prop_assert!(!ask(elsewhere));
            let below = format!("{label}.github.com");
            prop_assert!(ask(below));
        }
    }
}
