//! One token: how long it is used, and when to fetch another.

use std::time::Duration;

use filters::{Now, Secret};

/// A token of an issuer.
#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer` and the token.
    pub(super) value: Secret,
    /// When it was requested.
    pub(super) since: Now,
    lifetime: Duration,
    /// Until when it is used without looking for another.
    fresh_until: Duration,
    /// Whether the next request waits for another, though this one has not ended.
    refused: bool,
}

/// The state of a token.
pub(super) enum TokenState {
    Fresh(Token),
    /// Still good, but another should be fetched.
    Due(Token),
    /// None that should be used before another was requested.
    Lacking,
}

/// The last token, if there is one.
#[derive(Default)]
pub(super) struct TokenSlot {
    token: Option<Token>,
    /// When the upstream last made us fetch another.
    refused: Option<Duration>,
}

/// A token is renewed this long before it ends, or half its life if that is shorter.
const AHEAD: Duration = Duration::from_secs(30);
/// The longest life that is believed.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// An upstream's 401 makes us fetch another token at most so often: its reason may be another.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(60);

impl Token {
    /// A bearer token with this lifetime, requested at `asked`.
    pub(super) fn bearer(text: &str, lifetime: Duration, asked: Now) -> Self {
        let lifetime = lifetime.min(LIFETIME_MAX);
        Self {
            value: Secret::new(format!("Bearer {text}")),
            since: asked,
            lifetime,
            fresh_until: asked.elapsed + lifetime - AHEAD.min(lifetime / 2),
            refused: false,
        }
    }

    /// The same, used until this time at most, in seconds since 1970. Another would end then too, so none is
    /// fetched before.
    pub(super) fn until(mut self, unix_seconds: u64) -> Self {
        let left = Duration::from_secs(unix_seconds).saturating_sub(self.since.unix);
        if left < self.lifetime {
            self.lifetime = left;
            self.fresh_until = self.ends();
        }
        self
    }

    fn ends(&self) -> Duration {
        self.since.elapsed + self.lifetime
    }
}

impl TokenSlot {
    /// A previous token, which may not be valid any more.
    pub(super) fn doubtful(token: Option<Token>) -> Self {
        let token =
            token.map(|token| Token { fresh_until: Duration::ZERO, refused: true, ..token });
        Self { token, refused: None }
    }

    pub(super) fn state(&self, now: Duration) -> TokenState {
        match self.usable(now) {
            Some(token) if token.refused => TokenState::Lacking,
            Some(token) if now < token.fresh_until => TokenState::Fresh(token),
            Some(token) => TokenState::Due(token),
            None => TokenState::Lacking,
        }
    }

    /// The token, if it has not ended.
    pub(super) fn usable(&self, now: Duration) -> Option<Token> {
        self.token.clone().filter(|token| now < token.ends())
    }

    pub(super) fn replace(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// No other is available: no request waits for one while this is valid.
    pub(super) fn keep(&mut self) {
        if let Some(token) = &mut self.token {
            token.refused = false;
        }
    }

    /// Records that the upstream refused the token of that time.
    pub(super) fn refuse(&mut self, since: Duration, now: Duration) {
        let lately = self.refused.is_some_and(|last| now < last + BETWEEN_REFUSALS);
        let Some(token) = self.token.as_mut().filter(|token| token.since.elapsed == since) else {
            return;
        };
        if !lately {
            (token.refused, token.fresh_until) = (true, Duration::ZERO);
            self.refused = Some(now);
        }
    }

    /// When it ends, in seconds since 1970.
    pub(super) fn until(&self) -> Option<u64> {
        self.token.as_ref().map(|token| token.since.plus(token.lifetime).unix_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::credentials::{answer, client::TokenResponse};

    fn token(text: &str, seconds: u64) -> Token {
        let asked = Now {
            elapsed: Duration::from_secs(seconds),
            unix: Duration::from_secs(1_000_000 + seconds),
        };
        answer::token(&TokenResponse { status: 200, body: text.into(), asked }).unwrap()
    }

    /// `fresh`, `due` or `lacking`, at this second.
    fn state(held: &TokenSlot, seconds: u64) -> &'static str {
        match held.state(Duration::from_secs(seconds)) {
            TokenState::Fresh(_) => "fresh",
            TokenState::Due(_) => "due",
            TokenState::Lacking => "lacking",
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_ends_and_used_until_then() {
        let check = |expires_in: &str, fresh: u64, ends: u64| {
            let text = format!(r#"{{"access_token":"a.b","token_type":"bearer"{expires_in}}}"#);
            let token = token(&text, 100);
            assert_eq!(token.value.expose(), "Bearer a.b");
            let mut held = TokenSlot::default();
            held.replace(token);
            let around = [fresh - 1, fresh, ends - 1, ends];
            let standings = around.map(|after| state(&held, 100 + after));
            assert_eq!(standings, ["fresh", "due", "due", "lacking"], "{expires_in}");
            assert_eq!(held.until(), Some(1_000_100 + ends));
        };
        check(r#","expires_in":3600"#, 3570, 3600);
        check(r#","expires_in":"3600""#, 3570, 3600);
        check(r#","expires_in":3600.0"#, 3570, 3600);
        check("", 270, 300);
        check(r#","expires_in":40"#, 20, 40);
        check(r#","expires_in":18446744073709551615"#, 86_370, 86_400);
    }

    #[test]
    fn an_exchanged_token_is_used_no_longer_than_the_callers_own() {
        let check = |until: u64, fresh: u64, ends: u64| {
            let mut held = TokenSlot::default();
            let text = r#"{"access_token":"a","expires_in":100}"#;
            held.replace(token(text, 100).until(1_000_000 + until));
            let standings = [fresh - 1, ends - 1, ends].map(|at| state(&held, at));
            let before_end = if fresh == ends { "fresh" } else { "due" };
            assert_eq!(standings, ["fresh", before_end, "lacking"], "{until}");
        };
        check(1000, 170, 200);
        check(200, 170, 200);
        check(199, 199, 199);
        check(130, 130, 130);
        let mut held = TokenSlot::default();
        held.replace(token(r#"{"access_token":"a"}"#, 100).until(1_000_000));
        assert_eq!(state(&held, 100), "lacking", "that one has ended");
    }

    #[test]
    fn a_refused_token_is_replaced_before_the_next_request_but_not_over_and_over() {
        let fetched = |seconds| token(r#"{"access_token":"a","expires_in":3600}"#, seconds);
        let mut held = TokenSlot::default();
        let seconds = Duration::from_secs;
        held.replace(fetched(100));
        held.refuse(seconds(100), seconds(110));
        assert_eq!(state(&held, 110), "lacking");

        held.replace(fetched(111));
        assert_eq!(state(&held, 111), "fresh");
        held.refuse(seconds(100), seconds(200));
        assert_eq!(state(&held, 200), "fresh", "it was of the token before");
        held.refuse(seconds(111), seconds(169));
        assert_eq!(state(&held, 169), "fresh", "within a minute");
        held.refuse(seconds(111), seconds(170));
        assert_eq!(state(&held, 170), "lacking");

        held.keep();
        assert_eq!(state(&held, 171), "due", "the last is used, nobody waits");
    }
}
