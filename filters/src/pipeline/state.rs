//! What has happened. Outlives reloads; everything in it is bounded and forgets.

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
    /// Tokens that were verified, and the groups of callers whose token does not name them.
    pub tokens: Tokens,
    /// The passwords of callers on forward listeners.
    pub passwords: Passwords,
    /// Tunnels that are open.
    pub tunnels: Tunnels,
    /// What has been asked for.
    pub limiters: Limiters,
    /// Which upstreams are left alone.
    pub breakers: Breakers,
    /// How each of their addresses does.
    pub health: Health,
    /// What an operator has switched open or closed.
    pub switches: Switches,
    /// When each upstream may be asked next.
    pub paces: Paces,
    /// Requests under way that carry an idempotency key.
    pub in_flight: InFlight,
    /// The key that signs assertions.
    pub assertions: Assertions,
    /// Whether records can be kept.
    pub recording: Recording,
}

impl State {
    /// As it never is: nothing counts against a limit. For decisions about what was.
    pub fn suspended(assertions: Assertions) -> Self {
        Self { limiters: Limiters::suspended(), ..Self::new(assertions) }
    }
}

/// Whether records can be kept right now. Told by whoever writes them.
#[derive(Debug)]
pub struct Recording(AtomicBool);

impl State {
    /// What a proof is held against, by these rules.
    pub fn authenticator<'a>(&'a self, identity: &'a Identity, now: Now) -> Authenticator<'a> {
        let Self { keys, tokens, passwords, assertions, .. } = self;
        Authenticator { identity, keys, tokens, passwords, assertions, now }
    }

    /// As it is at the start.
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
    /// Says whether records can be kept.
    pub fn set(&self, works: bool) {
        self.0.store(works, Ordering::Relaxed);
    }

    /// Whether records can be kept.
    pub fn works(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets a request through that may pass unrecorded, or that will not.
    ///
    /// # Errors
    /// [`Denial::AuditUnavailable`] for an action while records cannot be kept.
    pub(crate) fn ready(&self, class: config::Class) -> Result<(), Denial> {
        if class == config::Class::Read || self.works() {
            return Ok(());
        }
        Err(Denial::AuditUnavailable)
    }
}
