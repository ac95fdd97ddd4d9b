//! What upstreams are shown: secrets from files, and tokens that are fetched with them.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use certs::LoadError;
use config::{ClientAuth, CredentialKind};
use filters::{Denial, Label, Now, Secret};
use http::HeaderValue;
use parking_lot::Mutex;

use crate::{
    clock,
    dial::Dial,
    fetch::{self, Allowance},
    metrics::Metrics,
};

/// All credentials of a config, ready to be shown. Replaced with it; what has not changed is taken
/// along.
pub struct Credentials {
    all: HashMap<Label, Arc<Credential>>,
    /// Why the last secret of some stays in use.
    pub kept: Vec<String>,
}

/// One credential.
struct Credential {
    written: config::Credential,
    secret: Secret,
    /// What its CA file held.
    ca: Option<Vec<u8>>,
    means: Means,
}

enum Means {
    /// The header's value.
    Fixed(Secret),
    Tokens(Arc<Tokens>),
}

/// A header's value for one exchange.
pub struct Shown {
    value: Secret,
    /// If it is a token: whose, and since when.
    token: Option<(Arc<Tokens>, Duration)>,
}

/// What an operator may know of a credential.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: Label,
    /// Its kind, as it is written.
    pub kind: &'static str,
    /// When the token ends, in seconds since 1970, if there is one.
    pub until: Option<u64>,
    /// Why the last fetch failed, if it did.
    pub failing: Option<String>,
}

/// The tokens of an OAuth 2 client: one at a time.
struct Tokens {
    name: Label,
    written: config::Credential,
    secret: Secret,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    /// Held while one is fetched; whoever waits finds it after that.
    under_way: tokio::sync::Mutex<()>,
    progress: Mutex<Progress>,
}

/// How the fetches went so far.
#[derive(Default)]
struct Progress {
    token: Option<Token>,
    /// When the last fetch ended.
    ended: Option<Duration>,
    /// Why it failed, so that an outage is told once.
    failing: Option<String>,
    allowance: Allowance,
    /// When the upstream last made us fetch another.
    refused: Option<Duration>,
}

#[derive(Clone)]
struct Token {
    /// `Bearer` and the token.
    value: Secret,
    /// When it was asked for.
    since: Now,
    lifetime: Duration,
    /// Until when it is used without looking for another.
    fresh_until: Duration,
    /// Whether the next request waits for another, though this one has not ended.
    refused: bool,
}

/// What there is to show.
enum Standing {
    Fresh(Token),
    /// Still good, but another should be fetched.
    Due(Token),
    /// Nothing that should be shown before another was asked for.
    Lacking,
}

/// Failed fetches in a row, and then one for each interval.
const FETCHES: (u32, Duration) = (3, Duration::from_secs(10));
/// A token is renewed this long before it ends, or half its life if that is shorter.
const AHEAD: Duration = Duration::from_secs(30);
/// The life of a token that does not say how long it lives, and the longest that is believed.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(86_400));
/// An upstream's 401 makes us fetch another token at most so often: its reason may be another.
const BETWEEN_REFUSALS: Duration = Duration::from_secs(60);
const SECRET_BYTES_MAX: usize = 16 << 10;

impl Credentials {
    /// From what the operator wrote; reads secrets. Of one that was already in use as it is written,
    /// the last secret stays if its file cannot be used any more.
    ///
    /// # Errors
    /// Every file that cannot be used.
    pub fn new(
        written: &config::Config,
        dial: &Dial,
        metrics: &Arc<Metrics>,
        last: Option<&Self>,
    ) -> Result<Self, Vec<String>> {
        let mut this = Self { all: HashMap::new(), kept: Vec::new() };
        let mut errors = Vec::new();
        for (name, written) in &written.credentials {
            let label = Label::from(name);
            let last = last.and_then(|last| last.all.get(&label));
            let last = last.filter(|last| last.written == written.value);
            let credential = match Credential::new(&label, written, dial, metrics, last) {
                Ok(credential) => credential,
                Err(error) => {
                    let Some(last) = last else {
                        errors.push(error);
                        continue;
                    };
                    let name = &label;
                    this.kept.push(format!("{error}; credential `{name}` stays as it was"));
                    Arc::clone(last)
                }
            };
            this.all.insert(label, credential);
        }
        if errors.is_empty() { Ok(this) } else { Err(errors) }
    }

    /// What to show now. Waits for a token if there is none.
    ///
    /// # Errors
    /// [`Denial::CredentialUnavailable`] if there is nothing to show.
    pub async fn get(&self, name: &Label) -> Result<Shown, Denial> {
        let credential = self.all.get(name).expect("a policy names known credentials");
        match &credential.means {
            Means::Fixed(value) => Ok(Shown { value: value.clone(), token: None }),
            Means::Tokens(tokens) => {
                let unavailable = || Denial::CredentialUnavailable { credential: name.clone() };
                let token = tokens.get().await.ok_or_else(unavailable)?;
                let of = (Arc::clone(tokens), token.since.elapsed);
                Ok(Shown { value: token.value, token: Some(of) })
            }
        }
    }

    /// What an operator may know, in the order of names.
    pub fn facts(&self) -> Vec<Facts> {
        let fact = |(name, credential): (&Label, &Arc<Credential>)| {
            let (until, failing) = match &credential.means {
                Means::Fixed(_) => (None, None),
                Means::Tokens(tokens) => tokens.progress.lock().facts(),
            };
            Facts { name: name.clone(), kind: credential.written.kind.name(), until, failing }
        };
        let mut all: Vec<Facts> = self.all.iter().map(fact).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Credential {
    fn new(
        name: &Label,
        written: &config::Credential,
        dial: &Dial,
        metrics: &Arc<Metrics>,
        last: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let secret = secret(written).map_err(|error| error.to_string())?;
        let ca = written.ca.as_ref().map(|file| certs::bytes(file)).transpose();
        let ca = ca.map_err(|error| error.to_string())?;
        if let Some(last) = last
            && last.secret == secret
            && last.ca == ca
        {
            return Ok(Arc::clone(last));
        }
        let means = match written.kind {
            CredentialKind::Basic => {
                let username = written.username.as_deref().unwrap_or_default();
                let pair = BASE64.encode(format!("{username}:{}", secret.expose()));
                Means::Fixed(Secret::new(format!("Basic {pair}")))
            }
            CredentialKind::Header => {
                let prefix = written.prefix.as_deref().unwrap_or_default();
                Means::Fixed(Secret::new(format!("{prefix}{}", secret.expose())))
            }
            CredentialKind::ClientCredentials => {
                let file = written.ca.as_deref().map(PathBuf::as_path);
                // An issuer may not know a new secret yet: its last token is good until it ends.
                let token = last.and_then(|last| match &last.means {
                    Means::Tokens(tokens) => tokens.progress.lock().token.clone(),
                    Means::Fixed(_) => None,
                });
                let token = token.map(|token| Token {
                    fresh_until: Duration::ZERO,
                    refused: true,
                    ..token
                });
                Means::Tokens(Arc::new(Tokens {
                    name: name.clone(),
                    written: written.clone(),
                    secret: secret.clone(),
                    client: fetch::client(dial, file)?,
                    metrics: Arc::clone(metrics),
                    under_way: tokio::sync::Mutex::default(),
                    progress: Mutex::new(Progress { token, ..Progress::default() }),
                }))
            }
        };
        Ok(Arc::new(Self { written: written.clone(), secret, ca, means }))
    }
}

impl Shown {
    /// The header's value.
    pub fn value(&self) -> HeaderValue {
        let value = HeaderValue::from_str(self.value.expose());
        value.expect("it was looked at when it was read")
    }

    /// Says that the upstream did not take it. A token is then fetched anew for the next request.
    pub fn refused(&self) {
        if let Some((tokens, since)) = &self.token {
            tokens.progress.lock().refuse(*since, clock::elapsed());
        }
    }
}

impl Tokens {
    async fn get(self: &Arc<Self>) -> Option<Token> {
        // In a statement of its own, so that no lock is held while we wait.
        let standing = self.progress.lock().standing(clock::elapsed());
        match standing {
            Standing::Fresh(token) => return Some(token),
            Standing::Due(token) => {
                if self.under_way.try_lock().is_ok() {
                    self.spawn();
                }
                return Some(token);
            }
            Standing::Lacking => {}
        }
        let _ = self.spawn().await;
        self.progress.lock().usable(clock::elapsed())
    }

    /// Fetches in a task: a client that hangs up must not break off what others wait for.
    fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let this = Arc::clone(self);
        tokio::spawn(async move { this.fetch().await })
    }

    async fn fetch(&self) {
        let asked = clock::elapsed();
        let _only = self.under_way.lock().await;
        {
            let mut progress = self.progress.lock();
            // Somebody fetched while we waited: what they got is ours.
            let done = progress.ended.is_some_and(|ended| ended >= asked);
            if done || !progress.allowance.take(clock::elapsed(), FETCHES) {
                return;
            }
        }
        let fetched = self.ask().await;
        self.metrics.credential_fetched(&self.name, fetched.as_ref().map(drop).map_err(drop));
        self.progress.lock().note(&self.name, fetched, clock::elapsed());
    }

    /// Client credentials (RFC 6749 4.4).
    async fn ask(&self) -> Result<Token, String> {
        let written = &self.written;
        let url = written.token_url.as_ref().expect("a config that is valid has it").to_string();
        let id = written.client_id.as_deref().unwrap_or_default();
        let scopes = written.scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials")];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        form.extend(written.audience.as_deref().map(|audience| ("audience", audience)));
        let mut request = self.client.post(&url);
        match written.client_auth.unwrap_or_default() {
            ClientAuth::Basic => {
                request = request.basic_auth(escaped(id), Some(escaped(self.secret.expose())));
            }
            ClientAuth::Post => {
                form.extend([("client_id", id), ("client_secret", self.secret.expose())]);
            }
        }
        let asked = clock::now();
        let answer = fetch::send(request.form(&form), &url).await?;
        let status = answer.status().as_u16();
        let body = fetch::body(answer, &url).await?;
        Token::read(status, &body, asked).map_err(|why| format!("`{url}` {why}"))
    }
}

impl Progress {
    fn standing(&self, now: Duration) -> Standing {
        match self.usable(now) {
            Some(token) if token.refused => Standing::Lacking,
            Some(token) if now < token.fresh_until => Standing::Fresh(token),
            Some(token) => Standing::Due(token),
            None => Standing::Lacking,
        }
    }

    fn usable(&self, now: Duration) -> Option<Token> {
        self.token.clone().filter(|token| now < token.since.elapsed + token.lifetime)
    }

    /// Notes how a fetch ended, and tells when that is news.
    fn note(&mut self, name: &Label, fetched: Result<Token, String>, now: Duration) {
        self.ended = Some(now);
        match fetched {
            Ok(token) => {
                self.token = Some(token);
                // How long a token lives is the issuer's choice: only failures are held back.
                self.allowance = Allowance::default();
                if self.failing.take().is_some() {
                    tracing::info!(credential = %name, "tokens can be fetched again");
                }
            }
            Err(cause) => {
                if let Some(token) = &mut self.token {
                    token.refused = false;
                }
                if self.failing.as_ref() != Some(&cause) {
                    tracing::warn!(credential = %name, cause, "no token could be fetched, keeping the last until it ends");
                }
                self.failing = Some(cause);
            }
        }
    }

    /// Notes that the upstream did not take the token of then.
    fn refuse(&mut self, since: Duration, now: Duration) {
        let lately = self.refused.is_some_and(|last| now < last + BETWEEN_REFUSALS);
        let Some(token) = self.token.as_mut().filter(|token| token.since.elapsed == since) else {
            return;
        };
        if !lately {
            (token.refused, token.fresh_until) = (true, Duration::ZERO);
            self.refused = Some(now);
        }
    }

    fn facts(&self) -> (Option<u64>, Option<String>) {
        let until = |token: &Token| token.since.plus(token.lifetime).unix_seconds();
        (self.token.as_ref().map(until), self.failing.clone())
    }
}

impl Token {
    /// Reads an issuer's answer to who asked then (RFC 6749 5). Says nothing of what it holds but
    /// the code of an error.
    fn read(status: u16, body: &[u8], asked: Now) -> Result<Self, String> {
        let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        if status != 200 {
            let code = answer.as_ref().and_then(|answer| answer["error"].as_str());
            let plain = |code: &&str| {
                code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            let code = code.filter(plain).map_or(String::new(), |code| format!(": {code}"));
            return Err(format!("answers {status}{code}"));
        }
        let answer = answer.ok_or("does not answer in JSON")?;
        let kind = answer["token_type"].as_str().unwrap_or("bearer");
        if !kind.eq_ignore_ascii_case("bearer") {
            return Err("answers with another kind of token than `Bearer`".to_owned());
        }
        let visible = |text: &&str| {
            (1..=SECRET_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let token = answer["access_token"].as_str().filter(visible);
        let token = token.ok_or("answers without a usable `access_token`")?;
        let lifetime = match &answer["expires_in"] {
            serde_json::Value::Null => Some(LIFETIME.0.as_secs()),
            // Some write it in quotes, some as a fraction.
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.as_u64().or_else(|| number.as_f64().map(|seconds| seconds as u64)),
        };
        let lifetime = lifetime.filter(|seconds| *seconds > 0);
        let lifetime = lifetime.ok_or("answers with a token that has ended already")?;
        let lifetime = Duration::from_secs(lifetime).min(LIFETIME.1);
        Ok(Self {
            value: Secret::new(format!("Bearer {token}")),
            since: asked,
            lifetime,
            fresh_until: asked.elapsed + lifetime - AHEAD.min(lifetime / 2),
            refused: false,
        })
    }
}

/// The secret of a credential.
///
/// # Errors
/// Why its file cannot be used.
pub fn secret(written: &config::Credential) -> Result<Secret, LoadError> {
    let file = written.secret_file().expect("a config that is valid has it");
    let wrong = |cause: &str| LoadError { file: file.value.clone(), cause: cause.to_owned() };
    let text = certs::bytes(file)?;
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(wrong("it is empty"));
    }
    if text.len() > SECRET_BYTES_MAX {
        return Err(wrong("it is too long for a secret"));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong("it has several lines, or other control characters"));
    }
    if written.kind == CredentialKind::Header && !text.is_ascii() {
        return Err(wrong("it is not ASCII, as a header must be"));
    }
    Ok(Secret::new(text))
}

/// A client's name or secret as it stands in `Authorization` (RFC 6749 2.3.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            elapsed: Duration::from_secs(seconds),
            unix: Duration::from_secs(1_000_000 + seconds),
        }
    }

    fn token(text: &str, asked: Now) -> Result<Token, String> {
        Token::read(200, text.as_bytes(), asked)
    }

    /// `fresh`, `due` or `lacking`, at this second.
    fn standing(progress: &Progress, seconds: u64) -> &'static str {
        match progress.standing(Duration::from_secs(seconds)) {
            Standing::Fresh(_) => "fresh",
            Standing::Due(_) => "due",
            Standing::Lacking => "lacking",
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_ends_and_used_until_then() {
        let check = |expires_in: &str, fresh: u64, ends: u64| {
            let text = format!(r#"{{"access_token":"a.b","token_type":"bearer"{expires_in}}}"#);
            let token = token(&text, at(100)).unwrap();
            assert_eq!(token.value.expose(), "Bearer a.b");
            let progress = Progress { token: Some(token), ..Progress::default() };
            let around = [fresh - 1, fresh, ends - 1, ends];
            let standings = around.map(|after| standing(&progress, 100 + after));
            assert_eq!(standings, ["fresh", "due", "due", "lacking"], "{expires_in}");
            assert_eq!(progress.facts().0, Some(1_000_100 + ends));
        };
        check(r#","expires_in":3600"#, 3570, 3600);
        check(r#","expires_in":"3600""#, 3570, 3600);
        check(r#","expires_in":3600.0"#, 3570, 3600);
        check("", 270, 300);
        check(r#","expires_in":40"#, 20, 40);
        check(r#","expires_in":18446744073709551615"#, 86_370, 86_400);
    }

    #[test]
    fn what_is_no_bearer_token_is_told_without_what_it_holds() {
        let check = |status: u16, body: &str, expected: &str| {
            assert_eq!(
                Token::read(status, body.as_bytes(), at(0)).err().as_deref(),
                Some(expected)
            );
        };
        check(200, "<html>hunter2", "does not answer in JSON");
        check(200, "{}", "answers without a usable `access_token`");
        check(200, r#"{"access_token":"hun\nter2"}"#, "answers without a usable `access_token`");
        check(
            200,
            r#"{"access_token":"hunter2","token_type":"DPoP"}"#,
            "answers with another kind of token than `Bearer`",
        );
        let ended = "answers with a token that has ended already";
        check(200, r#"{"access_token":"hunter2","expires_in":0}"#, ended);
        check(200, r#"{"access_token":"hunter2","expires_in":-5}"#, ended);
        check(200, r#"{"access_token":"hunter2","expires_in":true}"#, ended);
        check(401, r#"{"error":"invalid_client"}"#, "answers 401: invalid_client");
        check(400, r#"{"error":"no client 'hunter2'"}"#, "answers 400");
        check(302, "", "answers 302");
    }

    #[test]
    fn a_refused_token_is_replaced_before_the_next_request_but_not_over_and_over() {
        let name = Label::lossy("dxcp");
        let fetched = |seconds| token(r#"{"access_token":"a","expires_in":3600}"#, at(seconds));
        let mut progress = Progress::default();
        let seconds = Duration::from_secs;
        progress.note(&name, fetched(100), seconds(100));
        progress.refuse(seconds(100), seconds(110));
        assert_eq!(standing(&progress, 110), "lacking");

        progress.note(&name, fetched(111), seconds(111));
        assert_eq!(standing(&progress, 111), "fresh");
        progress.refuse(seconds(100), seconds(200));
        assert_eq!(standing(&progress, 200), "fresh", "it was of the token before");
        progress.refuse(seconds(111), seconds(169));
        assert_eq!(standing(&progress, 169), "fresh", "within a minute");
        progress.refuse(seconds(111), seconds(170));
        assert_eq!(standing(&progress, 170), "lacking");

        progress.note(&name, Err("away".to_owned()), seconds(171));
        assert_eq!(standing(&progress, 171), "due", "the last is used, nobody waits");
        assert_eq!(progress.facts().1.as_deref(), Some("away"));
    }

    #[test]
    fn a_secret_is_one_line_that_can_be_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let of = |kind: &str, key: &str, bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 credentials: {{a: {{kind: {kind}, {key}: {}}}}}\n",
                file.display()
            );
            let loaded = config::parse("test", &text).unwrap();
            let secret = secret(&loaded.config.credentials["a"]);
            secret.map(|s| s.expose().to_owned()).map_err(|error| error.cause)
        };
        let header = |bytes: &[u8]| of("header", "value_file", bytes);
        assert_eq!(header(b"a b\n"), Ok("a b".to_owned()));
        assert_eq!(header(b"a\r\n"), Ok("a".to_owned()));
        assert_eq!(header(b"\n"), Err("it is empty".to_owned()));
        assert_eq!(header(b"\xff"), Err("it is not UTF-8".to_owned()));
        assert_eq!(header("ä".as_bytes()), Err("it is not ASCII, as a header must be".to_owned()));
        let lines = Err("it has several lines, or other control characters".to_owned());
        assert_eq!(header(b"a\nb: c\n"), lines);
        assert_eq!(header(b"a\n\n"), lines);
        assert_eq!(
            header(&[b'a'; SECRET_BYTES_MAX + 1]),
            Err("it is too long for a secret".to_owned())
        );
        let basic = of("basic", "username: b, password_file", "ä".as_bytes());
        assert_eq!(basic, Ok("ä".to_owned()));
    }

    #[test]
    fn a_client_is_named_as_forms_are_written() {
        assert_eq!(escaped("portal-1_a.B"), "portal-1_a.B");
        assert_eq!(escaped("a:b +%ä"), "a%3Ab%20%2B%25%C3%A4");
    }
}
