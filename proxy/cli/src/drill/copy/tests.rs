//! Copies: whole, and nothing of the operator's in them.

use super::*;

#[test]
fn a_config_reads_back_as_it_was_written() {
    for example in ["edge", "sidecar", "egress", "external", "shared"] {
        let file = format!("{}/../../examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
        let first = proxy::lifecycle::reload::load(Path::new(&file)).unwrap().config;
        let again = config::parse("copy.yaml", &text(&first));
        let again = again.unwrap_or_else(|problems| panic!("{problems}")).config;
        assert_eq!(first, again, "{example}");
    }
}

/// Every external location that a config can name. None of them may remain in a copy.
const WHOLE: &str = r#"
version: stagedoor/v1
listeners:
  edge:
    kind: reverse
    address: 192.0.2.1:8443
    tls:
      certificates: [{cert: /real/tls.crt, key: /real/tls.key}]
      client_ca: /real/clients.crt
      client_certificate: required
    limits: {connections_per_client_max: 3}
  own: {kind: reverse, address: 192.0.2.1:8444, trusted_proxies: [192.0.2.0/24]}
  out: {kind: forward, address: 192.0.2.2:3128, workspace: payments}
  admin: {kind: admin, address: "127.0.0.1:9090"}
  status: {kind: status, address: "192.0.2.7:9091"}
identity:
  issuers:
    discovered: {issuer: https://real.example/realms/a, audiences: [a]}
    fetched: {issuer: fetched, audiences: [a], keys: {url: https://real.example/jwks, ca: /real/ca.crt}}
    filed: {issuer: filed, audiences: [a], keys: {file: /real/jwks.json}}
    shared: {issuer: shared, audiences: [a], algorithms: [HS512], keys: {secret_file: /real/secret}}
    portal: {kind: backstage, issuer: portal, algorithms: [ES256], keys: {backstage_url: "http://192.0.2.3:7007", insecure_http: true}}
    cluster: {issuer: "https://kubernetes.default.svc", audiences: [a], keys: {ca: /real/ca.crt, token_file: /real/token}}
    proxied: {issuer: iap, audiences: [a], audience_claim: b, required_claims: {c: [d]}, token_from: {header: x-iap}, keys: {file: /real/iap.json}}
    nobodys: {kind: orbit, listeners: [own], algorithms: [HS256], keys: {secret_file: /real/orbit}}
  tokens: {ci: {token_file: /real/ci, caller: ci}, other: {digest_file: /real/digests, caller: other}}
  client_certificates: [{name: "spiffe://a/b", caller: service:ci, workspaces: [payments]}]
workspaces: {named: {payments: {rate_limit: {rate: 1/h}}}}
plugins: {jenkins: {rate_limit: {rate: 1/h}}}
credentials:
  basic: {kind: basic, username: u, password_file: /real/password}
  header: {kind: header, value_file: /real/value}
  client: {kind: oauth2_client_credentials, token_url: https://real.example/token, client_id: c, client_secret_file: /real/client, ca: /real/ca.crt}
  exchange: {kind: token_exchange, token_url: https://real.example/token, client_id: c, client_secret_file: /real/client, issuers: [discovered]}
  app: {kind: github_app, api: https://real.example/api, app_id: "1", installation_id: 2, private_key_file: /real/app.pem}
  spacelift: {kind: spacelift_api_key, token_url: https://acme.real.example/graphql, key_id: k, key_secret_file: /real/key}
upstreams:
  a: {url: "https://a.real.example/base", credential: basic, health_check: {path: /healthz, status: "204"}, idempotency: {scope: caller, secret_file: /real/idempotency}, tls: {ca: /real/ca.crt, client_cert: /real/c.crt, client_key: /real/c.key}}
  b: {url: "http://192.0.2.4:80", http: h2, credential: header, pace: {rate: 1/h}}
  c: {url: "https://c.real.example", external: true, credential: client}
  d: {url: "https://d.real.example", credential: exchange}
  e: {url: "https://e.real.example", credential: app}
  spacelift: {url: "https://acme.real.example", external: true, credential: spacelift}
routes:
- {name: a, methods: [GET], path: /a, upstream: a, class: read, options: {access: {roles: [r]}, rate_limit: {rate: 1/h}}}
- {name: b, methods: [GET], path: /b, upstream: b, class: read, options: {access: {roles: [r]}}}
- {name: c, methods: [GET], path: /c, upstream: c, class: read, options: {access: {roles: [r]}}}
- {name: d, methods: [GET], path: /d, upstream: d, class: read, options: {access: {roles: [r]}}}
- {name: e, methods: [GET], path: /e, upstream: e, class: read, options: {access: {roles: [r]}}}
- {name: s, methods: [POST], path: /s, upstream: spacelift, class: read, options: {access: {callers: [p]}, graphql: [{query: [stacks]}]}}
egress:
  hosts: {own: ["own.called.example:8443", "*.wild.called.example"]}
  rules:
  - {name: groups, to: [own, gitlab]}
  - {name: hosts, to: ["plain.called.example:80", "192.0.2.5:9000"]}
  private: [{host: "own.called.example:8443", addresses: [192.0.2.0/24]}]
  callers: {p: {password_file: /real/egress, workspace: payments}}
headers: {assertion_key: /real/assertion.key}
store: {addresses: ["192.0.2.7:6379"], prefix: own, on_error: closed, password_file: /real/redis, tls: {ca: /real/ca.crt}}
control: {url: https://real.example/control, token_file: /real/control, cache_file: /real/kept}
audit:
  directory: /real/audit
  checkpoints: {key_file: /real/checkpoints.pem}
  ship: {siem: {kind: webhook, url: https://real.example/siem, secret_file: /real/siem}}
process: {upgrade_socket: /real/socket, name_servers: ["192.0.2.6:53"]}
"#;

#[test]
fn nothing_of_the_operators_is_left_in_a_copy() {
    let written = config::parse("stagedoor.yaml", WHOLE);
    let written = written.unwrap_or_else(|problems| panic!("{problems}")).config;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test").unwrap();
    let sockets = Sockets::bind(&written).unwrap();
    let place = Place {
        folder: folder.path(),
        authority: &authority,
        sockets: &sockets,
        counting: Counting::Nothing,
    };
    let copy = PrivateCopy::write(&written, &place).unwrap();
    let text = fs::read_to_string(&copy.file).unwrap();
    let again =
        proxy::lifecycle::reload::load(&copy.file).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(again.config, copy.config);
    let mut lines = text.lines().map(str::trim);
    let left = lines.find(|line| {
        let address = line.contains("192.0.2.") && !line.contains("192.0.2.0/24");
        line.contains("/real/") || line.contains("//real.example") || address
    });
    assert_eq!(left, None);
    // External names stay, at the ports of stand-ins.
    let urls = copy.config.upstreams.values().map(|upstream| &upstream.url);
    let named: Vec<&str> = urls
        .filter(|url| url.ip().is_none() && url.port != 443)
        .map(|url| url.host.as_str())
        .collect();
    assert_eq!(named, ["c.real.example", "acme.real.example"]);
    let kept = [("gitlab.com", true), ("drill.wild.called.example", true)];
    for (host, is_there) in kept {
        assert_eq!(copy.hosts.contains(&host.to_owned()), is_there, "{host}");
    }
    assert_eq!(copy.config.listeners.values().filter(|l| !l.address.ip().is_loopback()).count(), 0);
    assert_eq!(left::left(&written, folder.path(), &[]).as_deref(), Some("listeners.edge.address"));
    let mut theirs = copy.config.clone();
    theirs.store = written.store.clone();
    let hosts = &copy.hosts;
    assert_eq!(left::left(&theirs, folder.path(), hosts).as_deref(), Some("store.addresses"));
    assert_eq!(copy.config.upstreams["a"].url.path, "/base");
    assert_eq!(copy.config.upstreams["a"].breaker, written.upstreams["a"].breaker);
    assert!(copy.notes.iter().any(|note| note.contains("GitHub")), "{:?}", copy.notes);
}

#[test]
fn where_limits_are_what_breaks_they_are_counted_in_a_redis_of_the_drill() {
    let written = config::parse("stagedoor.yaml", WHOLE);
    let written = written.unwrap_or_else(|problems| panic!("{problems}")).config;
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test").unwrap();
    let sockets = Sockets::bind(&written).unwrap();
    let limit = config::Limit { rate: "7/s".parse().unwrap(), burst: None };
    let address = SocketAddr::from(([127, 0, 0, 1], 7));
    let counting = Counting::Shared(Shared { address, limit });
    let place = Place { folder: folder.path(), authority: &authority, sockets: &sockets, counting };
    let copy = PrivateCopy::write(&written, &place).unwrap();
    assert_eq!(proxy::lifecycle::reload::load(&copy.file).unwrap().config, copy.config);
    let config = &copy.config;
    let mut store = written.store.clone().unwrap().value;
    store.addresses = vec![Located::nowhere("127.0.0.1:7".parse().unwrap())];
    (store.password_file, store.tls) = (None, None);
    assert_eq!(config.store.as_ref().map(|store| &store.value), Some(&store));
    let limits = [
        Some(config.rate_limit.per_workspace),
        Some(config.egress.per_workspace),
        config.workspaces.named["payments"].rate_limit,
        config.plugins["jenkins"].rate_limit,
        config.routes[0].options.rate_limit,
    ];
    assert_eq!(limits, [Some(limit); 5]);
    // What was not limited is not.
    assert_eq!([config.rate_limit.per_caller, config.routes[1].options.rate_limit], [None; 2]);
    assert_ne!(config.rate_limit.per_client, limit, "strangers are not counted there");
}

#[test]
fn a_dollar_is_no_variable() {
    let mut tree = serde_json::json!({"a": ["$x", null], "b": null});
    plain(&mut tree);
    assert_eq!(tree, serde_json::json!({"a": ["$$x", null]}));
}
