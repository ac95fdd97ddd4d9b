//! The checks, each by its name, and which of them an exchange has come to.
//!
//! Their order is that of [`crate::pipeline::reverse`] and [`crate::pipeline::forward`], which enter each as they come to it.
//! Records, `explain` and `replay` say what happened from what was entered; nothing else lists the checks.

use std::fmt::Write;

/// One check of a request or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A call names a host and a port.
    Target,
    /// A request names a host.
    Host,
    /// Its path can be read in one way only.
    Path,
    /// A route takes it.
    Route,
    /// The route is open: to anybody at all, and to upgrades.
    Open,
    /// Its query parameters have allowed values.
    Query,
    /// Who is calling.
    Caller,
    /// For which workspace.
    Workspace,
    /// The plugin is on there.
    Plugin,
    /// The caller may use the route, and the workspace owns what the path names.
    Access,
    /// A rule allows what the body asks for.
    Operation,
    /// No operator has switched it off.
    Switches,
    /// A rule allows the host that is called.
    EgressRule,
    /// Not too many requests.
    RateLimit,
    /// Nobody else is doing the same with the same key.
    Idempotency,
    /// Not too many tunnels.
    Tunnels,
    /// It can be put on record.
    Audit,
    /// Its body has a size and a pace that are taken.
    RequestBody,
    /// The upstream is not left alone after failures.
    Breaker,
    /// The upstream's quota has room.
    Pace,
    /// What the upstream is shown can be had.
    Credential,
    /// The called host has an address that may be dialled.
    Address,
    /// The upstream, or the called host, is reached and answers.
    Upstream,
    /// What comes first in a tunnel is TLS for the host.
    ClientHello,
    /// The answer may be passed on, and is taken.
    Response,
}

impl Step {
    /// All of them, as they are declared.
    pub const ALL: [Self; 25] = [
        Self::Target,
        Self::Host,
        Self::Path,
        Self::Route,
        Self::Open,
        Self::Query,
        Self::Caller,
        Self::Workspace,
        Self::Plugin,
        Self::Access,
        Self::Operation,
        Self::Switches,
        Self::EgressRule,
        Self::RateLimit,
        Self::Idempotency,
        Self::Tunnels,
        Self::Audit,
        Self::RequestBody,
        Self::Breaker,
        Self::Pace,
        Self::Credential,
        Self::Address,
        Self::Upstream,
        Self::ClientHello,
        Self::Response,
    ];

    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Host => "host",
            Self::Path => "path",
            Self::Route => "route",
            Self::Open => "open",
            Self::Query => "query",
            Self::Caller => "caller",
            Self::Workspace => "workspace",
            Self::Plugin => "plugin",
            Self::Access => "access",
            Self::Operation => "operation",
            Self::Switches => "switches",
            Self::EgressRule => "egress_rule",
            Self::RateLimit => "rate_limit",
            Self::Idempotency => "idempotency",
            Self::Tunnels => "tunnels",
            Self::Audit => "audit",
            Self::RequestBody => "request_body",
            Self::Breaker => "breaker",
            Self::Pace => "pace",
            Self::Credential => "credential",
            Self::Address => "address",
            Self::Upstream => "upstream",
            Self::ClientHello => "client_hello",
            Self::Response => "response",
        }
    }
}

/// The checks that an exchange has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    entered: u32,
    last: Option<Step>,
}

impl Steps {
    /// Comes to a check. One may be come to twice: a path is looked at before its route is known, and
    /// by what the route says.
    pub fn enter(&mut self, step: Step) {
        self.entered |= 1 << step as u8;
        self.last = Some(step);
    }

    /// The check that was come to last.
    pub fn last(self) -> Option<Step> {
        self.last
    }

    /// The checks that were passed, where `refused` is the one that said no, if one did. What had begun
    /// by then was not passed either: a stranger's share may be used up while it is not known who calls.
    pub fn passed(self, refused: Option<Step>) -> impl Iterator<Item = Step> {
        let failed = move |step: Step| {
            refused.is_some() && (Some(step) == refused || Some(step) == self.last)
        };
        Step::ALL
            .into_iter()
            .filter(move |step| self.entered & 1 << *step as u8 != 0 && !failed(*step))
    }

    /// What happened, in one line.
    pub fn sentence(self, refused: Option<Step>) -> String {
        let passed: Vec<&str> = self.passed(refused).map(Step::name).collect();
        sentence(&passed, refused.map(Step::name), self.last.map_or("", Step::name))
    }
}

/// What happened, as [`Steps::sentence`] says it, from the names that a record has.
pub fn sentence(passed: &[&str], refused: Option<&str>, last: &str) -> String {
    let Some(refused) = refused else { return format!("all passed, up to {last}") };
    let mut out = if passed.is_empty() { "none".to_owned() } else { passed.join(", ") };
    let _ = write!(out, " passed; {refused} refused");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_listed_once_where_it_is_declared() {
        for (at, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, at);
        }
        assert_eq!(Step::ALL.last(), Some(&Step::Response), "a new last one belongs into ALL");
    }

    #[test]
    fn what_had_begun_is_not_passed() {
        let mut steps = Steps::default();
        assert_eq!(steps.sentence(Some(Step::Host)), "none passed; host refused");
        steps.enter(Step::Host);
        steps.enter(Step::Path);
        assert_eq!(steps.sentence(Some(Step::Path)), "host passed; path refused");
        steps.enter(Step::Route);
        steps.enter(Step::Path);
        assert_eq!(steps.sentence(Some(Step::Path)), "host, route passed; path refused");
        steps.enter(Step::Caller);
        let stranger = steps.sentence(Some(Step::RateLimit));
        assert_eq!(stranger, "host, path, route passed; rate_limit refused");
        steps.enter(Step::RateLimit);
        assert_eq!(steps.sentence(None), "all passed, up to rate_limit");
    }
}
