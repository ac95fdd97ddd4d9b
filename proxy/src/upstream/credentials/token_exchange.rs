//! Token exchange (RFC 8693): each caller's own token for one that the upstream accepts.
//!
//! An exchanged token is cached for that caller's token and used with no other: the key is the digest of the
//! whole token, and the token was verified for every request that arrives here.

use std::{sync::Arc, time::Duration};

use config::TokenType;
use filters::{Denial, Label, Secret, denial::TokenFault};
use moka::sync::Cache;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    answer,
    client::{Client, TokenResponse},
    outage::Outage,
    token::{Token, TokenSlot, TokenState},
};
use crate::{
    clock,
    net::allowance::{Allowance, Rate},
    observability::metrics::Metrics,
};

/// One issuer, and its exchanged tokens.
pub(super) struct TokenExchange {
    name: Label,
    client: Client,
    /// All that is sent but the token itself.
    form: Vec<(&'static str, String)>,
    requested: Option<TokenType>,
    metrics: Arc<Metrics>,
    kept: TokenCache,
    /// Limits concurrent exchanges.
    places: Semaphore,
    outage: Mutex<Outage>,
    /// Limits logged refusals.
    told: Allowance,
}

/// By the SHA-256 of a caller's token.
type TokenCache = Cache<[u8; 32], Arc<OfCaller>>;

/// What one token of a caller was exchanged for.
#[derive(Default)]
pub(super) struct OfCaller {
    /// Locked during an exchange; waiting requests find its result after that.
    in_flight: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    held: TokenSlot,
    /// When the last exchange ended.
    ended: Option<Duration>,
    /// Why it failed, if it did.
    denial: Option<Denial>,
}

/// Why there is no token.
#[derive(Debug, PartialEq)]
enum Failure {
    /// None for this caller. `said` is the issuer's description.
    Refused { cause: String, said: String },
    /// None for any caller, as far as known.
    Broken { cause: String },
}

const CACHED_MAX: u64 = 10_000;
/// Unused tokens are dropped after this.
const IDLE_MAX: Duration = Duration::from_secs(600);
const AT_ONCE_MAX: usize = 32;
/// How long an exchange waits until it is among those.
const PATIENCE: Duration = Duration::from_secs(1);
/// A caller's token that could not be exchanged is not tried again before this, so that one caller cannot
/// block the others.
const DENIED: Duration = Duration::from_secs(15);
/// The reason of a refusal is logged once in this time.
const BETWEEN_LOGGED: Rate = Rate::new(1, Duration::from_secs(60));
/// Errors that are about us or the issuer, and not about the caller.
const OURS: &[&str] = &[
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "server_error",
    "temporarily_unavailable",
];
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

impl TokenExchange {
    /// `last` is the same with another secret: its exchanged tokens are still valid.
    pub(super) fn new(
        name: Label,
        written: &config::Credential,
        client: Client,
        metrics: Arc<Metrics>,
        last: Option<&Self>,
    ) -> Self {
        let kept = || Cache::builder().max_capacity(CACHED_MAX).time_to_idle(IDLE_MAX).build();
        Self {
            name,
            client,
            form: form(written),
            requested: written.requested_token_type,
            metrics,
            kept: last.map_or_else(kept, |last| last.kept.clone()),
            places: Semaphore::new(AT_ONCE_MAX),
            outage: Mutex::default(),
            told: Allowance::new(BETWEEN_LOGGED),
        }
    }

    /// What `token`, which ends then (in seconds since 1970), is exchanged for. Waits for it if there
    /// is nothing yet.
    ///
    /// # Errors
    /// Why there is nothing for it.
    pub(super) async fn get(
        self: &Arc<Self>,
        token: &Secret,
        expires: u64,
    ) -> Result<(Token, Arc<OfCaller>), Denial> {
        // We may accept it within the leeway, but do not exchange an expired token.
        if clock::now().unix_seconds() >= expires {
            return Err(Denial::Token(TokenFault::Expired));
        }
        let of_caller = self.kept.get_with(key(token), Arc::default);
        // In its own statement, so that no lock is held while we wait.
        let state = of_caller.progress.lock().held.state(clock::elapsed());
        let fetch = || {
            // In a task: a client that hangs up must not break off what others wait for.
            let (this, of_caller, token) =
                (Arc::clone(self), Arc::clone(&of_caller), token.clone());
            tokio::spawn(async move { this.fetch(&of_caller, &token, expires).await })
        };
        match state {
            TokenState::Fresh(token) => return Ok((token, of_caller)),
            TokenState::Due(token) => {
                if of_caller.in_flight.try_lock().is_ok() {
                    fetch();
                }
                return Ok((token, of_caller));
            }
            TokenState::Lacking => {}
        }
        let _ = fetch().await;
        let found = of_caller.progress.lock().found(clock::elapsed());
        let unavailable = || Denial::CredentialUnavailable { credential: self.name.clone() };
        let token = found.map_err(|denial| denial.unwrap_or_else(unavailable))?;
        Ok((token, of_caller))
    }

    /// Why the issuer fails, if it does.
    pub(super) fn failing(&self) -> Option<String> {
        self.outage.lock().failing().map(str::to_owned)
    }

    async fn fetch(&self, of_caller: &OfCaller, token: &Secret, expires: u64) {
        let asked = clock::elapsed();
        let _only = of_caller.in_flight.lock().await;
        if of_caller.progress.lock().is_settled(asked, clock::elapsed()) {
            return;
        }
        let Some(_place) = self.place().await else {
            of_caller.progress.lock().leave(clock::elapsed());
            return;
        };
        let exchanged = self.exchange(token).await.map(|token| token.until(expires));
        self.note(exchanged.as_ref().err());
        of_caller.progress.lock().note(&self.name, exchanged, clock::elapsed());
    }

    /// A permit to send a request, if the issuer works or may be tried again.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = tokio::time::timeout(PATIENCE, self.places.acquire()).await.ok()?.ok()?;
        // Checked now: it may have begun to fail while many waited for a permit.
        let outage = self.outage.lock();
        let works = outage.failing().is_none() || outage.may_ask();
        works.then_some(place)
    }

    async fn exchange(&self, token: &Secret) -> Result<Token, Failure> {
        let mut form = vec![("subject_token", token.expose())];
        form.extend(self.form.iter().map(|(key, value)| (*key, &**value)));
        let answer = self.client.ask(form).await.map_err(|cause| Failure::Broken { cause })?;
        read(&answer, self.requested).map_err(|failure| failure.at(self.client.url()))
    }

    fn note(&self, failure: Option<&Failure>) {
        let (result, broken) = match failure {
            None => ("ok", None),
            Some(Failure::Refused { cause, said }) => {
                if self.told.take() {
                    tracing::warn!(credential = %self.name, cause, said, "a caller's token was not exchanged");
                }
                ("refused", None)
            }
            Some(Failure::Broken { cause }) => ("error", Some(&**cause)),
        };
        self.metrics.credential_fetched(&self.name, result);
        self.outage.lock().note(&self.name, broken);
    }
}

impl OfCaller {
    /// Records that the upstream refused the token of that time.
    pub(super) fn refuse(&self, since: Duration) {
        self.progress.lock().held.refuse(since, clock::elapsed());
    }
}

impl Progress {
    /// Whether a request from `asked` needs no exchange: another one made it meanwhile, or the last denial
    /// is too recent.
    fn is_settled(&self, asked: Duration, now: Duration) -> bool {
        let Some(ended) = self.ended else { return false };
        let fresh = matches!(self.held.state(now), TokenState::Fresh(_));
        fresh || ended >= asked || (self.denial.is_some() && now < ended + DENIED)
    }

    /// No request could be sent: nothing is known of this caller, and the waiting requests need not wait
    /// again.
    fn leave(&mut self, now: Duration) {
        (self.ended, self.denial) = (Some(now), None);
    }

    fn note(&mut self, name: &Label, exchanged: Result<Token, Failure>, now: Duration) {
        self.ended = Some(now);
        self.denial = None;
        match exchanged {
            Ok(token) => self.held.replace(token),
            Err(Failure::Broken { .. }) => {
                self.held.keep();
                self.denial = Some(Denial::CredentialUnavailable { credential: name.clone() });
            }
            // The previously exchanged token is not used any more either.
            Err(Failure::Refused { cause, .. }) => {
                self.held = TokenSlot::default();
                self.denial = Some(Denial::TokenExchangeRefused {
                    credential: name.clone(),
                    cause: Label::lossy(&cause),
                });
            }
        }
    }

    fn found(&self, now: Duration) -> Result<Token, Option<Denial>> {
        self.held.usable(now).ok_or_else(|| self.denial.clone())
    }
}

impl Failure {
    fn at(self, url: &str) -> Self {
        match self {
            Self::Broken { cause } => Self::Broken { cause: format!("`{url}` {cause}") },
            refused => refused,
        }
    }
}

fn key(token: &Secret) -> [u8; 32] {
    let hash = digest(&SHA256, token.expose().as_bytes());
    hash.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// The request's form (RFC 8693 2.1).
fn form(written: &config::Credential) -> Vec<(&'static str, String)> {
    let subject = written.subject_token_type.unwrap_or(TokenType::AccessToken);
    let mut form = vec![
        ("grant_type", GRANT_TYPE.to_owned()),
        ("subject_token_type", subject.urn().to_owned()),
    ];
    let requested = written.requested_token_type.map(|kind| kind.urn().to_owned());
    let more = [
        ("requested_token_type", requested),
        ("audience", written.audience.clone()),
        ("resource", written.resource.clone()),
        ("scope", Some(written.scopes.join(" ")).filter(|scopes| !scopes.is_empty())),
    ];
    form.extend(more.into_iter().filter_map(|(key, value)| Some((key, value?))));
    form
}

/// Parses a response (RFC 8693 2.2).
fn read(answer: &TokenResponse, requested: Option<TokenType>) -> Result<Token, Failure> {
    let granted = answer::granted(answer).and_then(|body| {
        let issued = body["issued_token_type"].as_str();
        let issued = issued.ok_or("responds without `issued_token_type` (RFC 8693 2.2.1)")?;
        let id = requested == Some(TokenType::IdToken);
        let kinds: &[TokenType] =
            if id { &[TokenType::IdToken] } else { &[TokenType::AccessToken, TokenType::Jwt] };
        if !kinds.iter().any(|kind| issued == kind.urn()) {
            return Err("responds with a different `issued_token_type` than requested".to_owned());
        }
        // For anything but an access token, the type is `N_A`.
        if !(id && body["token_type"] == "N_A") {
            answer::is_bearer(&body)?;
        }
        answer::access_token(&body, answer.asked)
    });
    granted.map_err(|cause| {
        let code = answer::error_code(answer);
        let ours = code.as_ref().is_some_and(|code| OURS.contains(&&**code));
        if !ours && matches!(answer.status, 400 | 403 | 413 | 431) {
            let body = answer::json(&answer.body).unwrap_or_default();
            let said = answer::sentence(&body["error_description"]).unwrap_or_default().to_owned();
            return Failure::Refused {
                cause: code.unwrap_or_else(|| answer.status.to_string()),
                said,
            };
        }
        Failure::Broken { cause }
    })
}

#[cfg(test)]
mod tests {
    use filters::Now;

    use super::*;

    fn answered(status: u16, body: &str, requested: Option<TokenType>) -> Result<Token, Failure> {
        let asked = Now { elapsed: Duration::from_secs(100), unix: Duration::from_secs(1_000_100) };
        read(&TokenResponse { status, body: body.into(), asked }, requested)
    }

    fn granted(issued: &str, kind: &str) -> String {
        format!(
            r#"{{"access_token":"a.b","issued_token_type":"urn:ietf:params:oauth:token-type:{issued}","token_type":"{kind}","expires_in":60}}"#
        )
    }

    #[test]
    fn only_a_bearer_token_is_accepted() {
        use TokenType as T;
        let check = |body: &str, requested: Option<T>, expected: Result<&str, &str>| {
            let found = answered(200, body, requested).map(|token| token.value.expose().to_owned());
            let broken = |cause: &str| Failure::Broken { cause: cause.to_owned() };
            assert_eq!(found, expected.map(str::to_owned).map_err(broken), "{body}");
        };
        let shown = Ok("Bearer a.b");
        check(&granted("access_token", "Bearer"), None, shown);
        check(&granted("jwt", "bearer"), None, shown);
        check(&granted("jwt", "Bearer"), Some(T::AccessToken), shown);
        check(&granted("id_token", "N_A"), Some(T::IdToken), shown);
        let another = Err("responds with a different `issued_token_type` than requested");
        check(&granted("refresh_token", "Bearer"), None, another);
        check(&granted("id_token", "N_A"), None, another);
        check(&granted("access_token", "Bearer"), Some(T::IdToken), another);
        check(
            r#"{"access_token":"a.b","token_type":"Bearer"}"#,
            None,
            Err("responds without `issued_token_type` (RFC 8693 2.2.1)"),
        );
        let kind = Err("responds with a token type other than `Bearer`");
        check(&granted("access_token", "N_A"), None, kind);
        check(&granted("access_token", "DPoP"), None, kind);
        check("<html>", None, Err("does not respond with JSON"));
    }

    #[test]
    fn what_is_about_the_caller_is_a_refusal_and_what_is_about_us_is_not() {
        let refused = |status: u16, body: &str, cause: &str, said: &str| {
            let (cause, said) = (cause.to_owned(), said.to_owned());
            assert_eq!(answered(status, body, None).err(), Some(Failure::Refused { cause, said }));
        };
        for code in ["invalid_request", "invalid_grant", "invalid_token", "invalid_target"] {
            refused(400, &format!(r#"{{"error":"{code}"}}"#), code, "");
        }
        refused(
            403,
            r#"{"error":"access_denied","error_description":"Client is not within the token audience"}"#,
            "access_denied",
            "Client is not within the token audience",
        );
        refused(400, r#"{"error":"token 'hunter2'","error_description":"`hunter2`"}"#, "400", "");
        refused(431, "", "431", "");
        let broken = |status: u16, body: &str| {
            let found = answered(status, body, None).err();
            assert!(matches!(found, Some(Failure::Broken { .. })), "{status} {body}: {found:?}");
        };
        broken(401, r#"{"error":"invalid_client"}"#);
        broken(400, r#"{"error":"unauthorized_client"}"#);
        broken(400, r#"{"error":"unsupported_grant_type"}"#);
        [302, 404, 429, 500, 503].into_iter().for_each(|status| broken(status, ""));
    }

    #[test]
    fn a_refusal_removes_the_token_and_a_failure_does_not() {
        let name = Label::lossy("orders");
        let token = || answered(200, &granted("jwt", "Bearer"), None);
        let at = Duration::from_secs;
        let mut progress = Progress::default();
        progress.note(&name, token(), at(101));
        assert!(progress.found(at(120)).is_ok());
        assert!(progress.is_settled(at(120), at(120)), "who comes late need not ask again");
        progress.note(&name, Err(Failure::Broken { cause: "away".to_owned() }), at(130));
        assert!(progress.found(at(131)).is_ok());
        let (cause, said) = ("invalid_grant".to_owned(), String::new());
        progress.note(&name, Err(Failure::Refused { cause, said }), at(140));
        let code = |found: Result<Token, Option<Denial>>| match found.err() {
            Some(Some(denial)) => denial.code(),
            _ => "none",
        };
        assert_eq!(code(progress.found(at(141))), "token_exchange_refused");
        let settled = [141, 154, 155].map(|now| progress.is_settled(at(now), at(now)));
        assert_eq!(settled, [true, true, false]);
        assert!(progress.is_settled(at(139), at(200)), "it ended after they asked");
        progress.leave(at(160));
        assert_eq!(code(progress.found(at(160))), "none", "what it was is not known any more");
        progress.note(&name, token(), at(161));
        assert!(!progress.is_settled(at(162), at(162)));
    }

    #[test]
    fn what_was_exchanged_is_known_by_the_whole_token_and_by_nothing_less() {
        let known = |text: &str| key(&Secret::new(text));
        assert_eq!(known("eyJ.a.b"), known("eyJ.a.b"));
        for other in ["eyJ.a.c", "eyJ.a.", "eyJ.a.b ", "Bearer eyJ.a.b", ""] {
            assert_ne!(known("eyJ.a.b"), known(other), "{other}");
        }
    }
}
