//! Decides recorded exchanges again, by the same functions, with another policy.
//!
//! Nothing is guessed: it reports what a record does not hold, and what was decided by a state that no
//! longer exists.

mod call;
mod facts;
pub mod record;
mod request;
pub mod turn;

use http::HeaderMap;

use crate::{
    Denial, Exchange, Now, Policy, State, audit,
    denial::{DecidedBy, TargetFault, step},
    identity::assertion::Assertions,
};
use record::{Record, Text};

/// A policy that decides recorded exchanges again.
pub struct Replay {
    policy: Policy,
    state: State,
    headers: HeaderMap,
}

/// A decision that was made again.
pub struct Decided {
    /// What was learned.
    pub exchange: Exchange,
    /// Why it is refused, if it is.
    pub denial: Option<Denial>,
    /// What was not inspected when it was recorded, and so is not judged here: a call that was refused by
    /// name has no addresses.
    pub unjudged: Option<&'static str>,
}

/// Why a record cannot be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The record is not of an exchange or a call but, for example, an intent or the beginning of a segment.
    NotAnExchange,
    /// The head never became a request.
    NoRequest,
    /// The record is older than the facts that a decision needs.
    Older,
    /// The record has facts that this version does not know.
    Newer,
    /// It contains a name that this version does not know.
    Unknown,
    /// A state decided: a limit, a breaker, a key that could not be fetched.
    State,
    /// The caller was not known, and must be.
    NoCaller,
    /// The request was a sign-in, which is answered here.
    SignedIn,
    /// The issuer that vouched for the caller is not in the config.
    IssuerGone,
    /// The caller was known by a cookie that the route does not accept.
    CookieRefused,
    /// The listener is not in the config.
    ListenerGone,
    /// The record holds only a part of the path or the host.
    InPart,
    /// A query parameter that has a rule now had none then.
    Query,
    /// The body was not read then.
    Body,
    /// An argument that has a rule now had none then.
    Argument,
    /// The first bytes in the tunnel were not inspected then.
    Hello,
}

/// How a decision that was made again differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was allowed, and is refused.
    NewDenial,
    /// It was refused, and is allowed.
    NewAllow,
    /// It is refused for another reason.
    Code,
    /// Another route matches it.
    Route,
    /// It goes to another upstream.
    Upstream,
    /// Another rule allows the call.
    Rule,
}

/// The outcome of a decision, by its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// It was allowed, whatever the upstream did then.
    Allowed,
    /// The rules refused it.
    Denied,
    /// A state refused it: whether the rules would have is unknown.
    State,
}

impl Why {
    /// The sentence for it.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotAnExchange => "not an exchange (intents, segment beginnings, gaps)",
            Self::NoRequest => "the head never became a request",
            Self::Older => "written before records had all facts",
            Self::Newer => "written by a newer version, with facts that this version does not know",
            Self::Unknown => "it contains something that this version does not know",
            Self::State => "decided by state (limits, breakers, keys, bodies), not by rules",
            Self::NoCaller => {
                "a caller is required, but none was recorded (no token, or a refused one)"
            }
            Self::SignedIn => "it was a sign-in handled here",
            Self::IssuerGone => "the caller's issuer is not in this config",
            Self::CookieRefused => {
                "the caller's token was in a cookie that the route does not accept"
            }
            Self::ListenerGone => "its listener is not in this config",
            Self::InPart => {
                "its path or host was recorded only in part (too long, or it contained something like a token)"
            }
            Self::Query => "a query parameter has a rule that it did not have then",
            Self::Body => "the route reads bodies, but this one was not read then",
            Self::Argument => "a GraphQL argument has a rule that it did not have then",
            Self::Hello => "the client's first bytes were not recorded",
        }
    }
}

impl Record<'_> {
    /// Which checks were passed and which one refused, as the exchange recorded them. `None` for records of
    /// versions that did not.
    pub fn checks(&self) -> Option<String> {
        let step = self.step.as_deref()?;
        if let Some(why) = &self.fallback_for {
            return Some(format!("{why} after {step}: a kept response was served"));
        }
        let passed: Vec<&str> = self.passed.iter().map(|step| &**step).collect();
        Some(step::sentence(&passed, (&*self.decision == "deny").then_some(step), step))
    }

    /// Its outcome.
    pub fn was(&self) -> Was {
        if &*self.decision == "allow" {
            return Was::Allowed;
        }
        match DecidedBy::of_code(&self.code) {
            // What happened after that does not matter here.
            Some(DecidedBy::Afterwards) => Was::Allowed,
            Some(DecidedBy::State) => Was::State,
            // A code of another version may also be of a rule.
            Some(DecidedBy::Rules) | None => Was::Denied,
        }
    }
}

impl Decided {
    /// The code, `ok` if it is allowed.
    pub fn code(&self) -> &'static str {
        self.denial.as_ref().map_or("ok", Denial::code)
    }

    /// How it differs from what was recorded.
    pub fn change(&self, record: &Record<'_>) -> Option<Change> {
        let is = |was: &Option<Text<'_>>, is: Option<&str>| was.as_deref() == is;
        let route = self.exchange.route.as_deref();
        match (record.was(), &self.denial) {
            (Was::Allowed, Some(_)) => Some(Change::NewDenial),
            (Was::Denied | Was::State, None) => Some(Change::NewAllow),
            (_, Some(denial)) if *denial.code() != *record.code => Some(Change::Code),
            (_, Some(_)) => None,
            (_, None) => {
                let rule = self.exchange.call.as_ref().and_then(|called| called.rule.as_ref());
                if !is(&record.route, route.map(|route| &*route.name)) {
                    Some(Change::Route)
                } else if !is(&record.upstream, route.map(|route| &*route.upstream)) {
                    Some(Change::Upstream)
                } else if !is(&record.egress_rule, rule.map(|rule| &*rule.name)) {
                    Some(Change::Rule)
                } else {
                    None
                }
            }
        }
    }
}

impl Replay {
    /// With this policy, and an empty state in which nothing is counted.
    pub fn new(policy: Policy) -> Self {
        let state = State::suspended(Assertions::with_new_key());
        Self { policy, state, headers: HeaderMap::new() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides a recorded exchange again.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn decide(&mut self, record: &Record<'_>) -> Result<Decided, Why> {
        if record.kind.is_some() {
            return Err(Why::NotAnExchange);
        }
        if record.request_line.is_some() {
            return Err(Why::NoRequest);
        }
        match record.facts {
            0 => return Err(Why::Older),
            audit::FACTS => {}
            _ => return Err(Why::Newer),
        }
        if record.was() == Was::State {
            return Err(Why::State);
        }
        let listener = self.policy.listener(&record.listener).ok_or(Why::ListenerGone)?;
        // No rule of any config affects these.
        let settled = match &*record.code {
            "host_invalid" => Some(Denial::HostInvalid),
            "target_invalid" => Some(Denial::TargetInvalid(TargetFault::HostEmpty)),
            _ => None,
        };
        if let Some(denial) = settled {
            let exchange = Exchange::default();
            return Ok(Decided { exchange, denial: Some(denial), unjudged: None });
        }
        if record.path_in_part || record.host_in_part {
            return Err(Why::InPart);
        }
        let now = Now { unix: audit::unix_of(&record.time).ok_or(Why::Unknown)?, ..Now::default() };
        match &record.target {
            Some(target) => self.call(record, listener, target, now),
            None => self.request(record, listener, now),
        }
    }
}

#[cfg(test)]
mod tests;
