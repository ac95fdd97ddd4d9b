//! Listeners: addresses, TLS, workspaces.

use super::{Findings, is_unknown_workspace};
use crate::{ClientCertificate, Config, Listener, ListenerKind, Name, Place};

pub(super) fn check(config: &Config, found: &mut Findings) {
    if config.listeners.is_empty() && !found.cuts.touch(&["listeners"]) {
        found.problem(
            &Place::default(),
            "`listeners` is empty; write at least one of kind `reverse`",
        );
    }
    let all: Vec<_> = config.listeners.iter().collect();
    for (index, (name, listener)) in all.iter().enumerate() {
        let place = &listener.place;
        if let Some((other, _)) = all[..index].iter().find(|(_, l)| l.address == listener.address) {
            found.problem(place, format!("`{name}` and `{other}` have the same address"));
        }
        let loopback = listener.address.ip().is_loopback();
        if listener.kind == ListenerKind::Admin && !loopback {
            found.warning(
                place,
                format!(
                    "admin listener `{name}` is not on loopback; anyone who reaches it can reload"
                ),
            );
        }
        if listener.kind == ListenerKind::Reverse && listener.tls.is_none() && !loopback {
            found.warning(
                place,
                format!("`{name}` accepts tokens over plain TCP from other machines; add `tls`"),
            );
        }
        match (&listener.proxy_protocol, listener.balancers()) {
            (Some(written), Some([])) => found.problem(
                &written.place,
                format!("`{name}` would refuse every connection; name the load balancers that send the PROXY protocol: `proxy_protocol: {{from: [10.0.0.0/24]}}`"),
            ),
            (Some(written), Some(from)) if from.iter().any(|net| net.prefix_len() == 0) => found.warning(
                &written.place,
                format!("any client could forge its address on `{name}`; name your load balancers in `from`"),
            ),
            _ => {}
        }
        let serves_us = matches!(listener.kind, ListenerKind::Admin | ListenerKind::Status);
        if serves_us && listener.workspace.is_some() {
            found.problem(place, format!("`{name}` has no use for a workspace; remove it"));
        }
        if let Some(workspace) = &listener.workspace
            && is_unknown_workspace(config, workspace, found)
        {
            found.problem(
                &workspace.place,
                format!("no workspace `{}` in `workspaces.named`", workspace.value),
            );
        }
        cors(name, listener, found);
        let Some(tls) = &listener.tls else { continue };
        if tls.certificates.is_empty() {
            found.problem(
                &tls.place,
                "`certificates` is empty; write `- {cert: tls.crt, key: tls.key}`",
            );
        }
        if tls.client_certificate == ClientCertificate::Required && tls.client_ca.is_none() {
            found.problem(&tls.place, "`client_certificate: required` needs `client_ca`");
        }
    }
}

fn cors(name: &Name, listener: &Listener, found: &mut Findings) {
    let Some(cors) = &listener.cors else { return };
    if listener.kind != ListenerKind::Reverse {
        found.problem(
            &cors.place,
            format!("`cors` is for listeners of kind `reverse`; remove it from `{name}`"),
        );
    }
    if cors.origins.is_empty() {
        found.problem(
            &cors.place,
            "`origins` is empty; write for example `[https://app.example.com]`, or remove `cors`",
        );
    }
}
