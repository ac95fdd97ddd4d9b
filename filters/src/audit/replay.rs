//! Decides again about what was recorded, by the same functions, with another policy.
//!
//! Nothing is guessed: what a record does not hold, and what was decided by a state that is gone, is
//! said to be so.

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

/// A policy that decides about what was.
pub struct Replay {
    policy: Policy,
    state: State,
    headers: HeaderMap,
}

/// A decision that was made again.
pub struct Decided {
    /// All that was learned.
    pub exchange: Exchange,
    /// The reason to say no, if there is one.
    pub denial: Option<Denial>,
    /// What was not looked at when it was recorded, and so is not judged here: a call that was
    /// refused by name has no addresses.
    pub unjudged: Option<&'static str>,
}

/// Why something on record cannot be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The record is no exchange or call: an intent, the beginning of a segment.
    NotAnExchange,
    /// The head never became a request.
    NoRequest,
    /// The record is older than its facts.
    Older,
    /// The record has facts that are not known here.
    Newer,
    /// Something that this version does not know stands in it.
    Unknown,
    /// A state decided: a limit, a breaker, a key that could not be fetched.
    State,
    /// Nobody was known to be calling, and somebody must be.
    NoCaller,
    /// The caller signed in here; it did not ask for anything.
    SignedIn,
    /// The issuer that vouched for the caller is not in the config.
    IssuerGone,
    /// The caller was known by a cookie that the route does not take.
    CookieRefused,
    /// The listener is not in the config.
    ListenerGone,
    /// The record holds the path or the host in part.
    InPart,
    /// A query parameter that has a rule now had none.
    Query,
    /// The body was not read then.
    Body,
    /// An argument that has a rule now had none.
    Argument,
    /// What the client said first in a tunnel was not looked at then.
    Hello,
}

/// How a decision that was made again differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was let through, and is refused.
    NewDenial,
    /// It was refused, and is let through.
    NewAllow,
    /// It is refused for another reason.
    Code,
    /// Another route takes it.
    Route,
    /// It goes to another upstream.
    Upstream,
    /// Another rule lets the call through.
    Rule,
}

/// How a record says that a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// It was let through, whatever the upstream did then.
    Allowed,
    /// The rules refused it.
    Denied,
    /// A state refused it: whether the rules would have is not known.
    State,
}

impl Why {
    /// In words.
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
    /// Which checks were passed and which one refused, as the exchange itself said it. Records of
    /// versions that did not write it have nothing.
    pub fn checks(&self) -> Option<String> {
        let step = self.step.as_deref()?;
        if let Some(why) = &self.fallback_for {
            return Some(format!("{why} after {step}: a kept response was served"));
        }
        let passed: Vec<&str> = self.passed.iter().map(|step| &**step).collect();
        Some(step::sentence(&passed, (&*self.decision == "deny").then_some(step), step))
    }

    /// How it ended.
    pub fn was(&self) -> Was {
        if &*self.decision == "allow" {
            return Was::Allowed;
        }
        match DecidedBy::of_code(&self.code) {
            // What came of it is another matter.
            Some(DecidedBy::Afterwards) => Was::Allowed,
            Some(DecidedBy::State) => Was::State,
            // Another version's code, too, may be of a rule.
            Some(DecidedBy::Rules) | None => Was::Denied,
        }
    }
}

impl Decided {
    /// The code, `ok` if it is let through.
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
    /// With this policy, and a state in which nothing has happened and nothing counts.
    pub fn new(policy: Policy) -> Self {
        let state = State::suspended(Assertions::with_new_key());
        Self { policy, state, headers: HeaderMap::new() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides again about what is recorded.
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
        // No rule of any config makes a difference to these.
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
