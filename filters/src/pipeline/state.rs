//! What has happened. Outlives reloads; everything in it is bounded and expires.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    Denial, Now,
    checks::switches::Switches,
    identity::{
        Authenticator, Identity, Keys, Tokens, assertion::Assertions, passwords::Passwords,
    },
    limits::{idempotency::InFlight, pace::Paces, rate_limit::Limiters, tunnels::Tunnels},
    upstream::{breaker::Breakers, health::Health},
};

/// What has happened.
pub struct State {
    /// The issuers' signing keys.
    pub keys: Keys,
    /// Verified tokens, and the groups of callers whose token does not name them.
    pub tokens: Tokens,
    /// The passwords of callers on forward listeners.
    pub passwords: Passwords,
    /// Open tunnels.
    pub tunnels: Tunnels,
    /// The state of rate limits.
    pub limiters: Limiters,
    /// The circuit breakers.
    pub breakers: Breakers,
    /// The health of each upstream address.
    pub health: Health,
    /// The operators' switches.
    pub switches: Switches,
    /// When the next request may go to each upstream.
    pub paces: Paces,
    /// Requests in progress with an idempotency key.
    pub in_flight: InFlight,
    /// The key that signs assertions.
    pub assertions: Assertions,
    /// Whether records can be written.
    pub recording: Recording,
}

impl State {
    /// A state in which nothing counts against a limit, for `replay`.
    pub fn suspended(assertions: Assertions) -> Self {
        Self { limiters: Limiters::suspended(), ..Self::new(assertions) }
    }
}

/// Whether records can be written now. Set by the writer.
#[derive(Debug)]
pub struct Recording(AtomicBool);

impl State {
    /// An authenticator by these rules.
    pub fn authenticator<'a>(&'a self, identity: &'a Identity, now: Now) -> Authenticator<'a> {
        let Self { keys, tokens, passwords, assertions, .. } = self;
        Authenticator { identity, keys, tokens, passwords, assertions, now }
    }

    /// The state at the start.
    pub fn new(assertions: Assertions) -> Self {
        Self {
            keys: Keys::default(),
            tokens: Tokens::default(),
            passwords: Passwords::default(),
            tunnels: Tunnels::default(),
            limiters: Limiters::default(),
            breakers: Breakers::default(),
            health: Health::default(),
            switches: Switches::default(),
            paces: Paces::default(),
            in_flight: InFlight::default(),
            assertions,
            recording: Recording(AtomicBool::new(true)),
        }
    }
}

impl Recording {
    /// Sets whether records can be written.
    pub fn set(&self, works: bool) {
        self.0.store(works, Ordering::Relaxed);
    }

    /// Whether records can be written.
    pub fn works(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Permits a request if it can be recorded, or may pass unrecorded.
    ///
    /// # Errors
    /// [`Denial::AuditUnavailable`] for an action while records cannot be written.
    pub(crate) fn ready(&self, class: config::Class) -> Result<(), Denial> {
        if class == config::Class::Read || self.works() {
            return Ok(());
        }
        Err(Denial::AuditUnavailable)
    }
}
