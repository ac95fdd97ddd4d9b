//! The checks by name, and which of them an exchange has reached.
//!
//! Their order is that of [`crate::pipeline::reverse`] and [`crate::pipeline::forward`], which enter each
//! one as they reach it. Records, `explain`, `replay` and the scenario pages report from what was entered;
//! nothing else lists the checks.

use std::fmt::Write;

/// One check of a request or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The call names a host and a port.
    Target,
    /// The request names a host.
    Host,
    /// Its path can be read in one way only.
    Path,
    /// A route matches it.
    Route,
    /// The route is not closed, and allows upgrades if one is requested.
    Open,
    /// Its query parameters have allowed values.
    Query,
    /// The caller is authenticated.
    Caller,
    /// The caller may act for the workspace.
    Workspace,
    /// The plugin is on for the workspace.
    Plugin,
    /// The caller may use the route, and the workspace owns what the path names.
    Access,
    /// A rule allows the operation in the body.
    Operation,
    /// No operator's switch refuses it.
    Switches,
    /// A rule allows the host that is called.
    EgressRule,
    /// The rate limits allow it.
    RateLimit,
    /// No request with the same idempotency key is in progress.
    Idempotency,
    /// The workspace has a tunnel left.
    Tunnels,
    /// It can be recorded.
    Audit,
    /// Its body is within the limits of size and speed.
    RequestBody,
    /// The upstream's circuit breaker lets it pass.
    Breaker,
    /// The upstream's quota has room.
    Pace,
    /// The upstream's credential is available.
    Credential,
    /// The called host has an allowed address.
    Address,
    /// The upstream, or the called host, is reachable and responds.
    Upstream,
    /// The first bytes in a tunnel are TLS for the host.
    ClientHello,
    /// The response may be forwarded, and the client reads it.
    Response,
}

impl Step {
    /// All of them, in the order of their declaration.
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

/// The checks that an exchange has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    entered: u32,
    last: Option<Step>,
}

impl Steps {
    /// Enters a check. One may be entered twice: a path is checked before its route is known, and again by
    /// the route's rules.
    pub fn enter(&mut self, step: Step) {
        self.entered |= 1 << step as u8;
        self.last = Some(step);
    }

    /// The check that was entered last.
    pub fn last(self) -> Option<Step> {
        self.last
    }

    /// Whether a check was entered.
    pub fn reached(self, step: Step) -> bool {
        self.entered & 1 << step as u8 != 0
    }

    /// The checks that were passed; `refused` is the one that refused, if one did. The check that was
    /// entered last was not passed then either: an unauthenticated client may be over its rate limit while
    /// its caller is checked.
    pub fn passed(self, refused: Option<Step>) -> impl Iterator<Item = Step> {
        let failed = move |step: Step| {
            refused.is_some() && (Some(step) == refused || Some(step) == self.last)
        };
        Step::ALL.into_iter().filter(move |step| self.reached(*step) && !failed(*step))
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
