//! Config changes that take effect only at the next start.

use config::{Config, Limits, Listener, Process};

/// Resets in a new config what cannot change while the process runs. Returns what a restart would apply.
pub fn keep_started(started: &Config, last: &Config, new: &mut Config) -> Vec<String> {
    let mut missed = listeners(started, new);
    keep_listeners(last, new);
    keep("store", &started.store, &mut new.store, &mut missed);
    keep("audit", &started.audit, &mut new.audit, &mut missed);
    let Process {
        threads,
        upgrade_socket,
        metric_aliases,
        name_servers,
        metric_workspaces_max,
        fallback_memory,
        drain_delay: _,
        drain_timeout: _,
    } = &mut new.process;
    let process = &started.process;
    keep("process.threads", &process.threads, threads, &mut missed);
    keep("process.upgrade_socket", &process.upgrade_socket, upgrade_socket, &mut missed);
    keep("process.metric_aliases", &process.metric_aliases, metric_aliases, &mut missed);
    keep("process.name_servers", &process.name_servers, name_servers, &mut missed);
    let memory = &process.fallback_memory;
    keep("process.fallback_memory", memory, fallback_memory, &mut missed);
    let max = &process.metric_workspaces_max;
    keep("process.metric_workspaces_max", max, metric_workspaces_max, &mut missed);
    let key = &started.headers.assertion_key;
    keep("headers.assertion_key", key, &mut new.headers.assertion_key, &mut missed);
    missed
}

fn keep<T: PartialEq + Clone>(name: &str, started: &T, new: &mut T, missed: &mut Vec<String>) {
    if started != new {
        missed.push(format!("`{name}` has changed: restart to apply it"));
        new.clone_from(started);
    }
}

fn listeners(started: &Config, new: &Config) -> Vec<String> {
    let mut missed = Vec::new();
    for (name, listener) in &new.listeners {
        match started.listeners.get(name) {
            Some(opened) if is_opened_so(opened, listener) => {}
            Some(_) => missed.push(format!("listener `{name}` has changed: restart to apply it")),
            None => missed.push(format!("listener `{name}` is new: restart to open it")),
        }
    }
    for name in started.listeners.keys().filter(|name| !new.listeners.contains_key(*name)) {
        missed.push(format!("listener `{name}` was removed: restart to close it"));
    }
    missed
}

fn is_opened_so(opened: &Listener, wanted: &Listener) -> bool {
    let tls = |listener: &Listener| {
        let tls = listener.tls.as_ref();
        tls.map(|tls| (tls.http2, tls.client_certificate, tls.client_ca.is_some()))
    };
    let limits = Limits { body_max: wanted.limits.body_max, ..opened.limits.clone() };
    opened.address == wanted.address
        && opened.kind == wanted.kind
        && tls(opened) == tls(wanted)
        && opened.proxy_protocol.is_some() == wanted.proxy_protocol.is_some()
        && limits == wanted.limits
}

/// The listeners as the process opened them, because decisions know them by number, with what can change in
/// each. A removed one stays as it was last.
fn keep_listeners(last: &Config, new: &mut Config) {
    let mut kept = last.listeners.clone();
    for (name, listener) in &mut kept {
        let Some(changed) = new.listeners.get(name) else { continue };
        let listener = &mut listener.value;
        listener.trusted_proxies.clone_from(&changed.value.trusted_proxies);
        if let (Some(own), Some(changed)) =
            (&mut listener.proxy_protocol, &changed.value.proxy_protocol)
        {
            own.clone_from(changed);
        }
        listener.workspace.clone_from(&changed.value.workspace);
        listener.plugin.clone_from(&changed.value.plugin);
        listener.report_only = changed.value.report_only;
        listener.cors.clone_from(&changed.value.cors);
        listener.limits.body_max = changed.limits.body_max;
        if let (Some(own), Some(changed)) = (&mut listener.tls, &changed.value.tls) {
            own.value.certificates.clone_from(&changed.value.certificates);
            if own.client_ca.is_some() && changed.client_ca.is_some() {
                own.value.client_ca.clone_from(&changed.value.client_ca);
            }
        }
    }
    new.listeners = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edge: &str, rest: &str) -> Config {
        let text = format!(
            "version: stagedoor/v1\nlisteners:\n  edge: {{kind: reverse, {edge}}}\n{rest}\n"
        );
        config::parse("test", &text).unwrap_or_else(|problems| panic!("{problems}")).config
    }

    #[test]
    fn only_what_cannot_change_while_it_runs_waits_for_a_restart() {
        let started = config("address: '127.0.0.1:1'", "");
        let check = |edge: &str, rest: &str, expected: &[&str]| {
            let mut new = config(edge, rest);
            let missed = keep_started(&started, &started, &mut new);
            let missed: Vec<&str> =
                missed.iter().map(|missed| missed.split(" has changed").next().unwrap()).collect();
            assert_eq!(missed, expected, "{edge} {rest}");
            new
        };
        let edge = "address: '127.0.0.1:1'";
        let new = check(edge, "process: {drain_delay: 1s, drain_timeout: 2s}", &[]);
        assert_eq!(new.process.drain_delay.as_secs(), 1);
        let new = check(&format!("{edge}, limits: {{body_max: 1MiB}}"), "", &[]);
        assert_eq!(new.listeners["edge"].limits.body_max.bytes(), 1 << 20);

        let from = format!("{edge}, trusted_proxies: [10.0.0.0/8], proxy_protocol: {{}}");
        let new = check(&from, "", &["listener `edge`"]);
        assert!(new.listeners["edge"].proxy_protocol.is_none());
        let new = check(&format!("{edge}, cors: {{origins: ['https://a.example']}}"), "", &[]);
        assert!(new.listeners["edge"].cors.is_some());

        let limits = format!("{edge}, limits: {{body_max: 1MiB, streams_max: 7}}");
        let new = check(&limits, "", &["listener `edge`"]);
        assert_eq!(new.listeners["edge"].limits.streams_max, 100);
        assert_eq!(new.listeners["edge"].limits.body_max.bytes(), 1 << 20);
        let new = check(edge, "process: {threads: 3, drain_delay: 1s}", &["`process.threads`"]);
        assert_eq!((new.process.threads, new.process.drain_delay.as_secs()), (None, 1));
        check(edge, "audit: {segments_max: 7}", &["`audit`"]);
        check(edge, "headers: {assertion_key: key}", &["`headers.assertion_key`"]);
    }

    #[test]
    fn it_is_reported_until_a_restart_and_only_while_it_is_true() {
        let started = config("address: '127.0.0.1:1'", "");
        let mut other = config("address: '127.0.0.1:2'", "audit: {segments_max: 7}");
        assert_eq!(keep_started(&started, &started, &mut other).len(), 2);
        let mut again = config("address: '127.0.0.1:2'", "audit: {segments_max: 7}");
        assert_eq!(keep_started(&started, &other, &mut again).len(), 2);
        let mut back = config("address: '127.0.0.1:1'", "");
        assert_eq!(keep_started(&started, &again, &mut back), [] as [&str; 0]);
    }
}
