//! A preset's closed routes next to the operator's own routes.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::Policy;

const STAGE: &str = "version: stagedoor/v1
listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}, other: {kind: reverse, address: '127.0.0.1:2'}}
upstreams: {portal: {url: 'http://127.0.0.1:1'}, own: {url: 'http://127.0.0.1:2'}}
";

fn loaded(presets: &str, own: &str) -> Result<config::Loaded, String> {
    let routes = if own.is_empty() { "" } else { "routes:\n" };
    let text = format!("{STAGE}presets: [{presets}]\n{routes}{own}");
    config::parse("s.yaml", &text).map_err(|problems| problems.to_string())
}

fn policy(presets: &str, own: &str) -> Policy {
    Policy::new(&loaded(presets, own).unwrap_or_else(|wrong| panic!("{wrong}")).config, "test")
}

fn found(policy: &Policy, method: &str, path: &str) -> Option<Found> {
    let path = NormalPath::of(path.as_bytes()).unwrap();
    policy.routes.find(0, "portal.test", &method.parse().unwrap(), &path).ok()
}

const BACKSTAGE: &str = "{preset: backstage, upstream: portal}";
const BOTH: &str = "{preset: backstage, upstream: portal}, {preset: kubernetes, upstream: portal}";

/// A route of the operator, and which takes each request: what a row of a preset yielded after `<`.
#[test]
fn a_row_that_is_not_opened_yields_to_the_operators_route_for_it_and_to_nothing_wider() {
    let check = |presets: &str, own: &str, requests: &[(&str, &str, &str)]| {
        let policy =
            policy(presets, &format!("- {{name: own, upstream: own, class: action, {own}}}\n"));
        for (method, path, expected) in requests {
            let Found { route, yielded } = found(&policy, method, path).unwrap();
            let by = yielded.map(|row| format!(" < {}", row.name)).unwrap_or_default();
            let closed = if route.options.closed { " closed" } else { "" };
            assert_eq!(format!("{}{closed}{by}", route.name), *expected, "{method} {path}, {own}");
        }
    };
    check(
        BACKSTAGE,
        "methods: [GET], path: /api/proxy/**",
        &[
            ("GET", "/api/proxy/sonar/x", "own < backstage.proxy"),
            ("HEAD", "/api/proxy/sonar/x", "own < backstage.proxy"),
            ("GET", "/api/proxy/sonar", "own < backstage.proxy"),
            // Not for a method that they did not write, nor for what is closed for good.
            ("POST", "/api/proxy/sonar/x", "backstage.proxy-writes closed"),
            ("GET", "/api/proxy/.backstage/actions/v1/actions", "backstage.proxy-internals closed"),
            (
                "GET",
                "/api/proxy/.well-known/backstage/permissions/metadata",
                "backstage.proxy closed",
            ),
            ("GET", "/api/other/x", "backstage.other-plugins closed"),
        ],
    );
    check(
        BACKSTAGE,
        "methods: [GET, POST, DELETE], path: /api/**",
        &[
            ("GET", "/api/other/x", "own < backstage.other-plugins"),
            // These are more exact than it is.
            ("GET", "/api/proxy/sonar/x", "backstage.proxy closed"),
            ("GET", "/api/other/openapi.json", "backstage.api-descriptions closed"),
            ("DELETE", "/api/catalog/entities/by-uid/1", "backstage.catalog-delete closed"),
            ("POST", "/api/auth/v1/sessions/1/approve", "backstage.oauth-approve closed"),
            ("POST", "/api/mcp-actions/v1/x", "backstage.mcp closed"),
            ("POST", "/api/auth/v1/offline-sessions/revoke", "backstage.offline-sessions closed"),
            (
                "GET",
                "/api/other/.backstage/scheduler/v1/tasks",
                "backstage.plugin-internals closed",
            ),
            // The preset keeps its open routes.
            ("GET", "/api/catalog/entities", "backstage.catalog"),
        ],
    );
    check(
        BACKSTAGE,
        "methods: [ANY], path: /**",
        &[
            ("GET", "/api/proxy/sonar/x", "backstage.proxy closed"),
            ("GET", "/api/other/x", "backstage.other-plugins closed"),
        ],
    );
    check(
        BACKSTAGE,
        "methods: [DELETE], path: /api/catalog/entities/by-uid/**",
        &[("DELETE", "/api/catalog/entities/by-uid/1", "own < backstage.catalog-delete")],
    );
    check(
        BOTH,
        "methods: [GET], path: /api/kubernetes/**",
        &[
            ("GET", "/api/kubernetes/proxy/api/v1/pods", "kubernetes.proxy closed"),
            ("GET", "/api/kubernetes/proxy/api/v1/secrets", "kubernetes.secrets closed"),
        ],
    );
    check(
        BOTH,
        "methods: [ANY], path: /api/kubernetes/proxy/**",
        &[
            ("GET", "/api/kubernetes/proxy/api/v1/pods", "own < kubernetes.proxy"),
            ("GET", "/api/kubernetes/proxy/api/v1/secrets", "kubernetes.secrets closed"),
            (
                "GET",
                "/api/kubernetes/proxy/api/v1/namespaces/a/secrets/b",
                "kubernetes.secrets-of-namespace closed",
            ),
            (
                "POST",
                "/api/kubernetes/proxy/api/v1/namespaces/a/pods/b/exec",
                "kubernetes.exec closed",
            ),
            (
                "GET",
                "/api/kubernetes/proxy/api/v1/nodes/n/proxy/logs",
                "kubernetes.node-proxy closed",
            ),
        ],
    );
    let own = "methods: [GET], path: /api/proxy/**";
    let request = [("GET", "/api/proxy/sonar/x", "backstage.proxy closed")];
    // An operator's `close` counts as well.
    check("{preset: backstage, upstream: portal, close: [proxy]}", own, &request);
    check(BACKSTAGE, &format!("{own}, listeners: [other]"), &request);
    check(BACKSTAGE, &format!("{own}, hosts: [elsewhere.test]"), &request);
    check(BACKSTAGE, &format!("{own}, options: {{closed: true}}"), &request);
    check(
        "{preset: backstage, upstream: portal, open: [proxy]}",
        own,
        &[("GET", "/api/proxy/sonar/x", "backstage.proxy")],
    );
    // A host is more exact than any path: what is for every host comes after all that a preset has for this one.
    let for_host = "{preset: backstage, upstream: portal, hosts: [portal.test]}";
    check(for_host, own, &request);
    check(
        for_host,
        &format!("{own}, hosts: [portal.test]"),
        &[("GET", "/api/proxy/sonar/x", "own < backstage.proxy")],
    );
}

#[test]
fn check_reports_where_a_wide_route_covers_what_a_preset_closes() {
    let told = |presets: &str, own: &str| {
        let own = format!("- {{name: own, upstream: own, class: action, {own}}}\n");
        loaded(presets, &own).unwrap().warnings.to_string()
    };
    let wide = told(BACKSTAGE, "methods: [GET], path: /api/**");
    assert!(wide.contains("route `own` (`/api/**`) does not match what preset `backstage` leaves closed below it: `oauth-client`, `oauth-authorize`, `oauth-session`, `mcp`, `proxy`, `api-descriptions`; add them to its `open`, or to its `close` if this is intended"), "{wide}");
    assert!(!wide.contains("closes for good"), "{wide}");
    let closed = "{preset: backstage, upstream: portal, close: [oauth-client, oauth-authorize, oauth-session, mcp, proxy, api-descriptions]}";
    assert!(!told(closed, "methods: [GET], path: /api/**").contains("leaves closed"));
    let for_host = "{preset: backstage, upstream: portal, hosts: [portal.test]}";
    let host = told(for_host, "methods: [GET], path: /api/proxy/**");
    assert!(host.contains("leaves closed below it: `proxy`;"), "{host}");
    let plugin = told(BACKSTAGE, "methods: [GET], path: /api/scorecards/**");
    assert!(plugin.contains("route `own` (`/api/scorecards/**`) also matches what preset `backstage` closes for good: `/api/scorecards/.backstage/**`, `/api/scorecards/.well-known/**`; add a route"), "{plugin}");
    let closed = "methods: [GET], path: /api/scorecards/**}\n- {name: a, methods: [ANY], path: /api/scorecards/.backstage/**, upstream: own, class: admin, options: {closed: true}}\n- {name: b, methods: [ANY], path: /api/scorecards/.well-known/**, upstream: own, class: admin, options: {closed: true}";
    assert!(
        !told(BACKSTAGE, closed).contains("preset `backstage` "),
        "{}",
        told(BACKSTAGE, closed)
    );
    for fine in [
        "methods: [GET], path: /api/proxy/**",
        "methods: [GET], path: /api/scorecards/list",
        "methods: [GET], path: /elsewhere/**, listeners: [other]",
        "methods: [GET], path: /api/**, options: {closed: true}",
    ] {
        assert!(!told(BACKSTAGE, fine).contains("preset `backstage` "), "{fine}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the operator writes: a request goes where it went before, or to what they wrote; what is
    /// closed for good, or is more exact than theirs, is not opened by it.
    #[test]
    fn an_operators_route_opens_only_what_it_names(
        segments in proptest::collection::vec(proptest::sample::select(vec!["api", "proxy", "auth", "v1", "kubernetes", "catalog", "entities", "namespaces", "{a}", "{b}"]), 0..5),
        methods in proptest::sample::select(vec!["GET", "POST", "DELETE", "ANY", "GET, POST"]),
    ) {
        let mut named = segments.clone();
        named.dedup();
        let path: String = named.iter().map(|segment| format!("/{segment}")).collect();
        let own = format!("- {{name: own, upstream: own, class: action, methods: [{methods}], path: '{path}/**'}}\n");
        // Some take the same requests as a row, and are no config.
        let Ok(with) = loaded(BOTH, &own) else { return Ok(()) };
        let (without, with_own) = (policy(BOTH, ""), Policy::new(&with.config, "test"));
        let template = &with.config.routes[0].path;
        let all = with.config.all_routes();
        for row in all.iter().skip(1) {
            let path: String = row.path.segments.iter().map(|segment| match segment {
                config::Segment::Text(text) => format!("/{text}"),
                config::Segment::Parameter(_) => "/some".to_owned(),
            }).collect();
            let path = if row.path.open_ended || path.is_empty() { format!("{path}/more") } else { path };
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
                let before = found(&without, method, &path);
                let Some(after) = found(&with_own, method, &path) else { continue };
                let (Some(before), true) = (before, *after.route.name == *"own") else { continue };
                let was = all.iter().find(|row| *row.name == *before.route.name).unwrap();
                if template.beside(&was.path) == Some(Ordering::Less) {
                    prop_assert!(was.yields_to(&with.config.routes[0]), "{} {} {}", method, path, was.name);
                    prop_assert!(template.names(&was.path));
                    prop_assert!(was.options.closed && after.yielded.is_some());
                }
            }
        }
    }
}
