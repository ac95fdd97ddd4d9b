//! Runs the pages in `scenarios/`: each is the documentation of a filter and its test.
//!
//! A page has blocks:
//!
//! - `yaml` is appended to a small config.
//! - `token NAME` has the header and the claims of a JWT.
//! - `http` is a request; with `after 31s`, a later one. `x-test-peer` is its client, `x-test-listener` its listener.
//! - `outcome 5 failure` (or `silence`, or `success`) sends the last request that often, with this outcome.
//! - `reachable` and `unreachable` are results of a breaker's probe of an upstream.
//! - `switch open for 30m` sets a switch that applies to what its lines name.
//! - `call` is a call on a forward listener, with the addresses of its host and the client's first bytes.
//! - `decision` is the expected decision, with the checks that a refused request had passed.
//!
//! Each exchange and call is also recorded and replayed, which must give the same decision.
//! `UPDATE=1 cargo test -p tests --test scenarios` rewrites the decisions; the diff is the review.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD as BASE64, BASE64_URL_SAFE_NO_PAD as BASE64URL},
};
use filters::{
    Denial, Exchange, Label, Now, Policy, Replay, State,
    assertion::Assertions,
    audit::{CallConnection, Ended, Entry, Received},
    breaker::Outcome,
    client_hello::{ClientHello, Peek},
    exchange::Served,
    explain::{Request, verdict},
    forward::{self, Call},
    identity::{Caller, KeySet, Source, install_crypto},
    leases::Leases,
    rate_limit::Limiters,
    replay::{Why, record::Record},
    reverse::{Admitted, Next, Supposed, decide_supposing, dispatch},
    switches::{Position, Scope},
    target::{Host, Target},
};
use ring::hmac;

/// What every page's config begins with.
const BASE: &str = "version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: 127.0.0.1:8080, trusted_proxies: [10.0.0.0/8]}
  catalog: {kind: forward, address: 127.0.0.1:3128, plugin: catalog}
  authenticated: {kind: forward, address: 127.0.0.1:3129}
  reporting: {kind: forward, address: 127.0.0.1:3130, plugin: catalog, report_only: true}
  own: {kind: reverse, address: 127.0.0.1:8081}
identity:
  tokens:
    ci: {token_file: ci, caller: 'external:ci', groups: [ci]}
  issuers:
    orbit:
      issuer: orbit
      audiences: [stagedoor]
      authorized_parties: [portal]
      token_types: [JWT]
      algorithms: [HS256]
      keys: {secret_file: secret}
    idp:
      issuer: https://idp.example
      audiences: [stagedoor]
      algorithms: [ES256]
    unreachable: {issuer: 'https://unreachable.example', audiences: [stagedoor], algorithms: [ES256]}
    usual:
      issuer: https://usual.example
      audiences: [stagedoor]
      algorithms: [HS256]
      keys: {secret_file: secret}
      claims: {default_workspace: home}
    cognito:
      issuer: https://cognito.example
      audiences: [app-1]
      audience_claim: client_id
      required_claims: {token_use: [access]}
      algorithms: [HS256]
      keys: {secret_file: secret}
    iap:
      issuer: https://iap.example
      audiences: [stagedoor]
      algorithms: [HS256]
      keys: {secret_file: secret}
      token_from: {header: x-goog-iap-jwt-assertion}
    github:
      issuer: https://github.example
      audiences: [stagedoor]
      algorithms: [HS256]
      keys: {secret_file: secret}
      callers:
      - {claims: {sub: 'repo:acme/*:ref:refs/heads/main'}, groups: [ci]}
    design: {kind: orbit, listeners: [own], algorithms: [HS256], keys: {secret_file: secret}, claims: {roles: role}}
upstreams:
  portal: {url: http://127.0.0.1:7007}
  dxcp: {url: http://127.0.0.1:8000, authority: delivery}
";
const SECRET: &[u8] = b"a secret that only the pages know";
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"one","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
/// An opaque token that the pages know.
const OPAQUE: &str = "8f3ca9d1e7b24c5f9a0d";
/// The pages' present: 2026-11-24, noon.
const NOON: u64 = 1_795_521_600;

/// All pages, so that none is missed.
const PAGES: [&str; 22] = [
    "access",
    "audit",
    "breaker",
    "credential",
    "dxcp",
    "egress",
    "external",
    "graphql",
    "idempotency",
    "machinery",
    "pace",
    "path",
    "plugin",
    "query",
    "rate_limit",
    "resource",
    "route",
    "store",
    "switch",
    "token",
    "token_place",
    "workspace",
];

#[test]
fn the_pages_say_what_happens() {
    let update = std::env::var_os("UPDATE").is_some();
    let pages = tests::files(&tests::root().join("tests/scenarios"), ".md");
    let mut names = Vec::new();
    let mut not_replayed = Vec::new();
    let mut wrong = Vec::new();
    let mut replayed = Replayed::default();
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        let mut page = Page::default();
        let new = page.run(&text);
        replayed.add(&page.replayed);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if page.replayed.same == 0 {
            not_replayed.push(name.clone());
        }
        names.push(name);
        if new == text {
            continue;
        }
        if update {
            fs::write(&path, new).unwrap();
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for (line, (is, was)) in new.lines().zip(text.lines()).enumerate() {
            if is != was {
                wrong.push(format!("{name}:{}\n  says    {was}\n  happens {is}", line + 1));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(names, PAGES);
    // Each page's decisions are replayed from their records; one page has none.
    assert_eq!(not_replayed, ["machinery"]);
    let left_out: Vec<&Why> = replayed.left_out.keys().collect();
    assert_eq!(left_out, [&Why::State, &Why::NoCaller], "{replayed:?}");
}

/// The results of replaying the records.
#[derive(Debug, Default)]
struct Replayed {
    same: u32,
    left_out: BTreeMap<Why, u32>,
}

impl Replayed {
    fn add(&mut self, other: &Self) {
        self.same += other.same;
        for (why, count) in &other.left_out {
            *self.left_out.entry(*why).or_default() += count;
        }
    }

    fn again(&mut self, line: &[u8], replay: &mut Replay) {
        let record = Record::read(line).expect("what is written can be read");
        match replay.decide(&record) {
            Err(why) => *self.left_out.entry(why).or_default() += 1,
            Ok(decided) => {
                let line = String::from_utf8_lossy(line);
                assert_eq!(decided.change(&record), None, "{:?} of {line}", decided.denial);
                assert_eq!(decided.unjudged, None, "{line}");
                self.same += 1;
            }
        }
    }
}

#[derive(Default)]
struct Page {
    yaml: String,
    tokens: HashMap<String, String>,
    running: Option<(Policy, State, Replay)>,
    replayed: Replayed,
    elapsed: Duration,
    last: Option<String>,
    outcome: String,
}

impl Page {
    /// The page with its decisions as they are.
    fn run(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            out.push_str(line);
            out.push('\n');
            let Some(kind) = line.strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = block.join("\n");
            if kind == "decision" {
                out.push_str(&self.outcome);
            } else {
                self.block(kind, &block);
                out.push_str(&block);
            }
            out.push_str("\n```\n");
        }
        out
    }

    fn block(&mut self, kind: &str, block: &str) {
        match kind.split_whitespace().collect::<Vec<_>>()[..] {
            ["yaml"] => {
                self.yaml = format!("{block}\n");
                self.running = None;
            }
            ["token", name] => _ = self.tokens.insert(name.to_owned(), token(block)),
            ["http"] => self.request(block, None),
            ["http", "after", time] => {
                let time: config::Duration = time.parse().unwrap();
                self.elapsed += *time;
                self.request(block, None);
            }
            ["call"] => self.call(block),
            ["reachable", upstream] => self.found(upstream, true),
            ["unreachable", upstream] => self.found(upstream, false),
            ["switch", position, "for", time] => self.switch(position, time, block),
            ["outcome", count, what] => {
                let outcome = match what {
                    "failure" => Outcome::Failure,
                    "silence" => Outcome::Silence,
                    _ => Outcome::Success,
                };
                let request = self.last.clone().expect("an outcome is of a request");
                for _ in 0..count.parse().unwrap() {
                    self.request(&request, Some(outcome));
                }
            }
            _ => {}
        }
    }

    fn found(&mut self, upstream: &str, there: bool) {
        let now = Now { elapsed: self.elapsed, unix: Duration::from_secs(NOON) + self.elapsed };
        let (_, state, _) = self.running.get_or_insert_with(|| running(&self.yaml));
        state.breakers.found(&Label::lossy(upstream), there, now);
    }

    fn switch(&mut self, position: &str, time: &str, block: &str) {
        let named =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let label = |name: &str| named(name).map(Label::lossy);
        let scope = Scope {
            upstream: label("upstream"),
            plugin: label("plugin"),
            workspace: label("workspace"),
            caller: label("caller"),
            class: named("class").map(|class| serde_json::from_value(class.into()).unwrap()),
        };
        let position = match position {
            "open" => Position::Open,
            _ => Position::Closed,
        };
        let time: config::Duration = time.parse().unwrap();
        let now = Now { elapsed: self.elapsed, unix: Duration::from_secs(NOON) + self.elapsed };
        let (_, state, _) = self.running.get_or_insert_with(|| running(&self.yaml));
        let why = ("ada", named("reason").unwrap_or("it burns"));
        state.switches.set(scope, position, *time, why, now).unwrap();
    }

    fn request(&mut self, text: &str, outcome: Option<Outcome>) {
        self.last = Some(text.to_owned());
        let mut text = text.to_owned();
        for (name, token) in &self.tokens {
            text = text.replace(&format!("${name}"), token);
        }
        let mut request = Request::read(&text).unwrap();
        if !request.headers.contains_key("host") {
            request.header("host: portal.example").unwrap();
        }
        let now = Now { elapsed: self.elapsed, unix: Duration::from_secs(NOON) + self.elapsed };
        let supposed = Supposed { caller: supposed(&mut request), operation: None };
        let mut exchange = Exchange::default();
        let (policy, state, replay) = self.running.get_or_insert_with(|| running(&self.yaml));
        let given = |request: &mut Request, name: &str| {
            Some(request.headers.remove(name)?.to_str().unwrap().to_owned())
        };
        let client = given(&mut request, "x-test-peer");
        let client: IpAddr = client.map_or([192, 0, 2, 1].into(), |peer| peer.parse().unwrap());
        let name = given(&mut request, "x-test-listener").unwrap_or("edge".to_owned());
        let listener = policy.listener(&name).expect("the base has this listener");
        if request.headers.remove("x-test-audit-fails").is_some() {
            state.recording.set(false);
        }
        let kept = request.headers.remove("x-test-stays").is_some();
        let head = request.head(listener, client, true);
        let decided = decide_supposing(&supposed, policy, state, &head, now, &mut exchange);
        let decided = decided.and_then(|admitted| {
            let Admitted { request, edits, next } = admitted;
            let dispatched = match next {
                Next::Dispatched(dispatched) => Some(dispatched),
                // There are no other requests to coalesce with.
                Next::Coalesce(_) => Some(dispatch(state, &request, now, &mut exchange)?),
                Next::Answer(_) => None,
            };
            Ok((request, edits, dispatched))
        });
        let denial = decided.as_ref().err();
        let dispatched = decided.as_ref().ok().and_then(|(.., dispatched)| dispatched.as_ref());
        let pacing_delay = dispatched.map_or(Duration::ZERO, |sent| sent.pacing_delay);
        let received = Received::request(policy, &head, None, now);
        let served = Served { pacing_delay, ..Served::default() };
        let line = written(policy, &exchange, &received, Ended { served, ..ended(denial) });
        assert_record_matches(&line, &exchange, denial);
        self.replayed.again(&line, replay);
        self.outcome = verdict(&exchange, denial) + &checks(&exchange, denial);
        if let Ok((_, edits, _)) = &decided {
            if let Some(target) = &edits.target {
                self.outcome += &format!("\nsends {target}");
            }
            for (name, value) in &edits.set {
                if name != "x-stagedoor-assertion" {
                    self.outcome += &format!("\nsets {name}: {}", value.to_str().unwrap());
                }
            }
        }
        if !pacing_delay.is_zero() {
            self.outcome += &format!("\nwaits {} ms", pacing_delay.as_millis());
        }
        if let Some(shown) = &exchange.credential {
            self.outcome += &format!("\npresents {} in {}", shown.name, shown.header);
        }
        let Ok((mut request, _, dispatched)) = decided else { return };
        if let Some(mut dispatched) = dispatched {
            let outcome = outcome.or(Some(Outcome::Success)).filter(|_| !kept);
            dispatched.report(&request, outcome, now);
        }
        if kept {
            // An exchange that is still in progress when the page ends.
            std::mem::forget(request.running.take());
        }
    }
}

impl Page {
    /// `CONNECT host:port on listener`, and lines `by name:password`, `resolves 1.2.3.4 ...` and
    /// `says server-name`, `says GET`, `hides server-name`.
    fn call(&mut self, text: &str) {
        let mut lines = text.lines();
        let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
        let ["CONNECT", target, "on", listener] = words[..] else { panic!("{words:?}") };
        let said = |what: &str| lines.clone().find_map(|line| line.strip_prefix(what));
        let now = Now { elapsed: self.elapsed, unix: Duration::from_secs(NOON) + self.elapsed };
        let (policy, state, replay) = self.running.get_or_insert_with(|| running(&self.yaml));
        let name = listener;
        let listener = policy.listener(name).expect("the base has this listener");
        let credentials = said("by ").map(|by| format!("Basic {}", BASE64.encode(by)));
        let authorization: Vec<&[u8]> = credentials.iter().map(|line| line.as_bytes()).collect();
        let mut exchange = Exchange::default();
        let decided = Target::of_connect(target.as_bytes())
            .map_err(Denial::TargetInvalid)
            .and_then(|target| {
                let peer = [192, 0, 2, 1].into();
                let call = Call {
                    listener,
                    peer,
                    certificate: None,
                    authorization: &authorization,
                    target: &target,
                };
                let named = forward::decide(policy, state, &call, now, &mut exchange)?;
                let found = said("resolves ").unwrap_or("192.88.98.1");
                let found: Vec<IpAddr> = found.split(' ').map(|ip| ip.parse().unwrap()).collect();
                let addressed = named.choose(policy, &found, &[], now, &mut exchange)?;
                let first = match (said("says "), said("hides ")) {
                    (Some("GET"), _) => Peek::NotTls,
                    // Every admitted client sends something.
                    (None, None) => Peek::Hello(ClientHello {
                        server_name: Some(target.host.to_string())
                            .filter(|_| matches!(target.host, Host::Name(_))),
                        encrypted: false,
                    }),
                    (name, hidden) => Peek::Hello(ClientHello {
                        server_name: name.or(hidden).map(str::to_owned),
                        encrypted: hidden.is_some(),
                    }),
                };
                if addressed.must_be_tls(policy) {
                    addressed.hello(policy, &first, &mut exchange)?;
                }
                Ok(addressed)
            });
        let connection =
            CallConnection { listener, peer: [192, 0, 2, 1].into(), tls: false, certificate: None };
        let received =
            Received::call(connection, http::Method::CONNECT, (target.as_bytes(), b""), None, now);
        let line = written(policy, &exchange, &received, ended(decided.as_ref().err()));
        assert_record_matches(&line, &exchange, decided.as_ref().err());
        self.replayed.again(&line, replay);
        let details = exchange.call.as_ref();
        self.outcome = match &decided {
            Ok(addressed) => {
                let rule = details.and_then(|details| details.rule.as_ref());
                let rule = rule.map_or("no rule", |rule| &rule.name);
                format!(
                    "allow by {rule} to {}",
                    addressed
                        .addresses
                        .iter()
                        .map(IpAddr::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Err(denial) => verdict(&exchange, Some(denial)) + &checks(&exchange, Some(denial)),
        };
        if let Some(code) = details.and_then(|details| details.would_deny) {
            self.outcome += &format!("\nwould deny {code}");
        }
        if said("stays").is_some() {
            std::mem::forget(decided);
        }
    }
}

/// How the exchange would end.
fn ended(denial: Option<&Denial>) -> Ended {
    let status = denial.map_or(200, |denial| denial.status().as_u16());
    Ended { status, denial: denial.cloned(), ..Ended::default() }
}

/// The check that refused and those passed before it, as `explain` prints them.
fn checks(exchange: &Exchange, denial: Option<&Denial>) -> String {
    let denial = denial.map(|denial| exchange.steps.sentence(Some(denial.step())));
    denial.map_or_else(String::new, |checks| format!("\nchecks {checks}"))
}

/// A record reports the checks as they happened.
fn assert_record_matches(line: &[u8], exchange: &Exchange, denial: Option<&Denial>) {
    let record = Record::read(line).expect("it was just written");
    assert_eq!(record.checks(), Some(exchange.steps.sentence(denial.map(Denial::step))));
}

fn written(policy: &Policy, exchange: &Exchange, received: &Received, ended: Ended) -> Vec<u8> {
    let mut line = Vec::new();
    Entry { policy, exchange, request_id: "page", received }.write(&mut line, &ended);
    line
}

fn running(yaml: &str) -> (Policy, State, Replay) {
    install_crypto();
    // A page may add to a section of the base.
    let (own, more): (String, String) = (BASE.to_owned(), yaml.to_owned());
    let text = if let Some(upstreams) = more.strip_prefix("upstreams:\n") {
        own + upstreams
    } else {
        own + &more
    };
    let loaded = config::parse("page.yaml", &text).unwrap_or_else(|p| panic!("{p}\n{text}"));
    let policy = Policy::new(&loaded.config, "page");
    let mut state = State::new(Assertions::with_new_key());
    // A page has no store: it is unreachable.
    if let Some(store) = &loaded.config.store {
        state.limiters = Limiters::sharing(Arc::new(Leases::new(store.on_error)));
    }
    let keys = |issuer: &str, set: KeySet| {
        let written = &loaded.config.identity.issuers[issuer];
        let source = Source::new(Label::lossy(issuer), written, None);
        state.keys.replace(&source, set, Now::default());
    };
    let passwords = [(Label::lossy("scaffolder"), b"the pages know it".as_slice())];
    state.passwords.replace(passwords.into_iter());
    for (name, issuer) in &loaded.config.identity.issuers {
        if issuer.keys.secret_file.is_some() {
            keys(name, KeySet::from_secret(SECRET).unwrap());
        }
    }
    let opaque = ring::digest::digest(&ring::digest::SHA256, OPAQUE.as_bytes());
    let opaque = [(Label::lossy("ci"), [opaque.as_ref().try_into().unwrap()])];
    state.tokens.opaque.replace(opaque.iter().map(|(name, digests)| (name, &digests[..])));
    keys("idp", KeySet::from_jwks(JWKS.as_bytes()).unwrap());
    (policy, state, Replay::new(Policy::new(&loaded.config, "page")))
}

/// `authorization: Bearer ada@payments;roles=deployer;groups=dev` supposes a caller.
fn supposed(request: &mut Request) -> Option<Arc<Caller>> {
    let text = request.headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
    let (subject, rest) = text.split_once('@')?;
    let mut caller = Caller::supposed(Label::new(subject)?);
    let labels = |list: &str| list.split(',').filter_map(Label::new).collect();
    for (index, part) in rest.split(';').enumerate() {
        match part.split_once('=') {
            Some(("roles", list)) => caller.roles = labels(list),
            Some(("groups", list)) => caller.groups = labels(list),
            _ if index == 0 => caller.workspaces = labels(part),
            _ => panic!("`{part}` says nothing of a caller"),
        }
    }
    request.headers.remove("authorization");
    Some(caller.into())
}

/// A JWT of the two JSON objects, signed with the pages' secret. `NOW+60` is a time.
fn token(block: &str) -> String {
    let (header, claims) = block.split_once('\n').expect("a token has a header and claims");
    let part = |text: &str| {
        let mut text = text.to_owned();
        while let Some(at) = text.find("NOW") {
            let rest = &text[at + 3..];
            let length = 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            let offset: i64 = rest[..length].parse().unwrap();
            let time = NOON.cast_signed() + offset;
            text = format!("{}{time}{}", &text[..at], &rest[length..]);
        }
        BASE64URL.encode(text)
    };
    let message = format!("{}.{}", part(header), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", BASE64URL.encode(tag.as_ref()))
}
