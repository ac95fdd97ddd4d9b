//! Issuers as an operator may write them, their keys, and a moment.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};

use super::signer::{SECRET, Signer, jwks};
use crate::{
    Denial, Label, Now,
    denial::TokenFault,
    identity::{
        Caller, Identity, KeySet, Keys, Presented, Refusal, Source, Tokens, install_crypto,
    },
};

/// The moment of all tests, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

const ISSUERS: &str = "
  keycloak:
    issuer: https://keycloak.example/realms/pcp
    audiences: [account]
    authorized_parties: [backstage]
    claims: {roles: [realm_access, roles], workspaces: [attributes, workspaces]}
  dxcp:
    issuer: https://dxcp.eu.auth0.example/
    audiences: ['https://dxcp-api']
    claims: {roles: 'https://dxcp.example/claims/roles'}
  orbit:
    issuer: orbit
    audiences: [stagedoor]
    algorithms: [HS256, HS384, HS512]
    keys: {secret_file: secret}
  strict:
    issuer: https://strict.example
    audiences: [a, b]
    token_types: [at+jwt]
    algorithms: [RS256, PS512, ES256, ES384, EdDSA]
    keys: {age_max: 1h}
  usual:
    issuer: https://usual.example
    audiences: [a]
    algorithms: [ES256]
    claims: {default_workspace: home}
  ids:
    issuer: https://ids.example
    audiences: [a]
    algorithms: [ES256]
    id_tokens: true
  cognito:
    issuer: https://cognito.example
    audiences: [app-1]
    audience_claim: client_id
    required_claims: {token_use: [access]}
    algorithms: [ES256]
  alb:
    issuer: https://alb.example
    audiences: ['arn:aws:elb:1']
    audience_header: signer
    algorithms: [ES256]
    token_from: {header: x-amzn-oidc-data, padding: allowed}
  iap:
    issuer: https://iap.example
    audiences: [a]
    algorithms: [ES256]
    token_from: {header: x-goog-iap-jwt-assertion}
  github:
    issuer: https://github.example
    audiences: [a]
    algorithms: [ES256]
    callers:
    - {claims: {sub: 'repo:acme/shop:ref:refs/heads/main', ref: refs/heads/main}, caller: 'service:shop', workspaces: [payments], roles: [deployer]}
    - {claims: {repository: 'acme/*', event_name: pull_request}, groups: [checks]}
  design:
    kind: orbit
    listeners: [own]
    algorithms: [HS256]
    keys: {secret_file: secret}
    claims: {roles: role}
  backstage:
    kind: backstage
    issuer: https://portal.example/api/auth
    audiences: [catalog]
    algorithms: [ES256]
    keys: {backstage_url: 'http://127.0.0.1:7007'}
";

const CERTIFICATES: &str = "
- {name: 'spiffe://mesh/ci', caller: 'service:ci', roles: [publisher], workspaces: [payments]}
- {name: ops.example, caller: 'service:ops'}
";

pub(super) struct Harness {
    pub(super) identity: Identity,
    pub(super) keys: Keys,
    pub(super) tokens: Tokens,
    pub(super) now: Now,
    pub(super) rs256: Signer,
    pub(super) hs256: Signer,
    pub(super) es256: Signer,
    pub(super) user: Signer,
    pub(super) plugin: Signer,
}

impl Harness {
    pub(super) fn new() -> Self {
        install_crypto();
        let stage = Self {
            identity: identity(ISSUERS),
            keys: Keys::default(),
            tokens: Tokens::default(),
            now: Now::default().plus(Duration::from_secs(NOW)),
            rs256: Signer::new("RS256", "rsa"),
            hs256: Signer::new("HS256", "any"),
            es256: Signer::new("ES256", "ec"),
            user: Signer::new("ES256", "user"),
            plugin: Signer::new("ES256", "plugin"),
        };
        stage.fetch("keycloak", None, jwks(&[&stage.rs256]));
        stage.fetch("dxcp", None, jwks(&[&stage.rs256]));
        stage.fetch("orbit", None, KeySet::from_secret(SECRET).unwrap());
        stage.fetch("strict", None, jwks(&[&stage.rs256, &stage.es256]));
        for issuer in ["usual", "ids", "cognito", "alb", "iap", "github"] {
            stage.fetch(issuer, None, jwks(&[&stage.es256]));
        }
        stage.fetch("design", None, KeySet::from_secret(SECRET).unwrap());
        stage.fetch("backstage", None, jwks(&[&stage.user]));
        stage.fetch("backstage", Some("scaffolder"), jwks(&[&stage.plugin]));
        stage
    }

    /// As if the keys had been fetched now.
    pub(super) fn fetch(&self, issuer: &str, plugin: Option<&str>, set: KeySet) {
        self.keys.replace(&self.source(issuer, plugin), set, self.now);
    }

    pub(super) fn source(&self, issuer: &str, plugin: Option<&str>) -> Source {
        let own = self.identity.issuers.iter().find(|own| *own.name == *issuer).unwrap();
        plugin.map_or_else(|| own.source.clone(), |plugin| own.source.of_plugin(label(plugin)))
    }

    pub(super) fn bearer(&self, token: &str) -> Result<Arc<Caller>, Refusal> {
        self.ask(&[(header::AUTHORIZATION, &format!("Bearer {token}"))])
    }

    /// As an ordinary request to a route without cookies.
    pub(super) fn ask(&self, lines: &[(HeaderName, &str)]) -> Result<Arc<Caller>, Refusal> {
        self.authenticate(&plain(&headers(lines)))
    }

    pub(super) fn authenticate(&self, asked: &Presented<'_>) -> Result<Arc<Caller>, Refusal> {
        self.identity.authenticate(asked, &self.keys, &self.tokens, self.now)
    }

    /// The token is refused for this, whatever was seen, and nothing would help.
    #[track_caller]
    pub(super) fn refuses(&self, token: &str, fault: &TokenFault) {
        let refusal = self.bearer(token).expect_err("it must be refused");
        assert_eq!(refusal.denial.code(), fault.code());
        assert_eq!(refusal.lack, None);
    }

    /// The token is refused because it cannot be read.
    #[track_caller]
    pub(super) fn finds_malformed(&self, token: &str) -> &'static str {
        match self.bearer(token).expect_err("it must be refused").denial {
            Denial::Token(TokenFault::Malformed { why }) => why,
            other => panic!("refused for another reason: {other:?}"),
        }
    }
}

pub(super) fn identity(issuers: &str) -> Identity {
    let text = format!(
        "version: stagedoor/v1
listeners:
  edge: {{kind: reverse, address: '127.0.0.1:1', trusted_proxies: [10.0.0.0/8], tls: {{certificates: [{{cert: c, key: k}}], client_ca: ca}}}}
  own: {{kind: reverse, address: '127.0.0.1:2'}}
  third: {{kind: reverse, address: '127.0.0.1:3'}}
upstreams: {{up: {{url: 'http://127.0.0.1:1'}}}}
routes: [{{name: r, methods: [GET], path: /, upstream: up, class: read}}]
workspaces: {{named: {{payments: {{}}}}}}
identity:
  issuers: {}
  tokens:
    ci: {{token_file: ci, caller: 'external:ci', workspaces: [payments], groups: [ci]}}
    other: {{digest_file: other, caller: 'external:other', listeners: [third]}}
  client_certificates: {}
",
        issuers.replace('\n', "\n    "),
        CERTIFICATES.replace('\n', "\n    "),
    );
    let loaded = config::parse("test.yaml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    Identity::new(&loaded.config)
}

pub(super) fn plain(headers: &HeaderMap) -> Presented<'_> {
    Presented {
        headers,
        listener: 0,
        from_proxy: &[],
        cookie_allowed: false,
        upgrade: false,
        certificate: None,
    }
}

pub(super) fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    lines.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

pub(super) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(super) fn labels(texts: &[&str]) -> Vec<Label> {
    texts.iter().map(|text| label(text)).collect()
}

/// What Orbit's seed puts in its tokens.
pub(super) fn orbit() -> Value {
    json!({
        "iss": "orbit",
        "aud": "stagedoor",
        "sub": "user-1",
        "workspaces": ["ws-abc"],
        "iat": NOW - 10,
        "exp": NOW + 600,
    })
}

/// The same with other members; `null` removes one.
pub(super) fn with(mut claims: Value, others: Value) -> Value {
    let Value::Object(others) = others else { panic!("not an object") };
    let members = claims.as_object_mut().unwrap();
    for (name, value) in others {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    claims
}
