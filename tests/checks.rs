//! The checks that a record, `explain` and `replay` report are what `decide` did, for any policy, state and
//! request.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::IpAddr, sync::Arc, time::Duration};

use filters::{
    Denial, Exchange, Label, Now, Policy, State, Step,
    assertion::Assertions,
    audit::{Ended, Entry, Received},
    breaker::Outcome,
    explain::{Request, steps},
    identity::{Caller, install_crypto},
    replay::record::Record,
    reverse::{Admitted, Next, Supposed, decide_supposing},
    switches::{Position, Scope},
};
use proptest::{bool::weighted, prelude::*};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// The obstacles for one request.
#[derive(Clone, Debug)]
struct World {
    public: bool,
    closed: bool,
    graphql: bool,
    action: bool,
    plugin_off: bool,
    workspace_gone: bool,
    limit_used_up: bool,
    switched_off: bool,
    breaker_open: bool,
    disk_full: bool,
    host: &'static str,
    target: &'static str,
    upgrade: bool,
    known: bool,
    role: bool,
    body: &'static str,
    key: Option<&'static str>,
}

/// Each obstacle alone is rare, so that any of them may be the first.
fn worlds() -> impl Strategy<Value = World> {
    let obstacle = || weighted(0.08);
    let of_route =
        (any::<bool>(), obstacle(), weighted(0.3), any::<bool>(), obstacle(), obstacle());
    let of_state = (obstacle(), obstacle(), obstacle(), obstacle());
    let path = prop_oneof![
        20 => Just("/api/x?view=all"), 1 => Just("/api/%2e%2e/x"), 1 => Just("/api/a%2Fb"), 1 => Just("/api/x?view=secret"), 1 => Just("/other"),
    ];
    let host = prop_oneof![20 => Just("a.example"), 1 => Just("b.example"), 1 => Just("a b")];
    let body = prop_oneof![8 => Just("{\"query\": \"{ stacks { id } }\"}"), 1 => Just("{"), 1 => Just("{\"query\": \"mutation { drop }\"}")];
    let key = prop_oneof![6 => Just(None), 2 => Just(Some("k")), 1 => Just(Some("k\nidempotency-key: l"))];
    let of_request = (host, path, obstacle(), weighted(0.9), weighted(0.9), body, key);
    (of_route, of_state, of_request).prop_map(|(route, state, request)| World {
        public: route.0,
        closed: route.1,
        graphql: route.2 && !route.0,
        action: route.3,
        plugin_off: route.4,
        workspace_gone: route.5,
        limit_used_up: state.0,
        switched_off: state.1,
        breaker_open: state.2,
        disk_full: state.3,
        host: request.0,
        target: request.1,
        upgrade: request.2,
        known: request.3,
        role: request.4,
        body: request.5,
        key: request.6,
    })
}

impl World {
    fn policy(&self) -> Policy {
        let graphql = if self.graphql { "graphql: [{query: [stacks]}], " } else { "" };
        let plugins = if self.plugin_off { "plugins: {p: false}" } else { "" };
        let options = if self.public { "public: true" } else { "access: {roles: [reader]}" };
        let class = if self.action && !self.public { "action" } else { "read" };
        let text = format!(
            "version: stagedoor/v1
listeners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}
identity: {{issuers: {{idp: {{issuer: idp, audiences: [a], algorithms: [HS256], keys: {{secret_file: s}}}}}}}}
workspaces: {{named: {{payments: {{{plugins}}}}}}}
rate_limit: {{per_workspace: {{rate: 1/h, burst: 3}}, per_client: {{rate: 1/h, burst: 3}}}}
upstreams: {{up: {{url: 'http://127.0.0.1:3', breaker: {{requests_min: 1, failure_percent: 1}}}}}}
routes:
- {{name: warm, hosts: [a.example], methods: [GET], path: /warm, upstream: up, plugin: q, class: read}}
- {{name: hello, hosts: [a.example], methods: [GET], path: /hello, upstream: up, plugin: p, class: read, options: {{public: true}}}}
- {{name: r, hosts: [a.example], methods: [{}], path: /api/**, upstream: up, plugin: p, class: {class}, options: {{{graphql}{options}, closed: {}, query: {{allow: {{view: [all]}}}}}}}}
",
            if self.graphql { "POST" } else { "GET" },
            self.closed,
        );
        let loaded =
            config::parse("s.yaml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Policy::new(&loaded.config, "test")
    }

    fn request(&self) -> Request {
        let method = if self.graphql { "POST" } else { "GET" };
        // A request of GraphQL has nothing in its URL.
        let target = match self.target {
            "/api/x?view=all" if self.graphql => "/api/x",
            target => target,
        };
        let mut text = format!("{method} {target} HTTP/1.1\nhost: {}\n", self.host);
        text += "content-type: application/json\n";
        if self.upgrade {
            text += "connection: upgrade\nupgrade: websocket\n";
        }
        if let Some(key) = self.key {
            text += &format!("idempotency-key: {key}\n");
        }
        Request::read(&format!("{text}\n{}", self.body)).unwrap()
    }

    fn caller(&self) -> Option<Arc<Caller>> {
        let mut caller = Caller::supposed(Label::lossy("ada"));
        caller.workspaces.push(Label::lossy(if self.workspace_gone { "gone" } else { "payments" }));
        if self.role {
            caller.roles.push(Label::lossy("reader"));
        }
        (self.known && !self.public).then(|| Arc::new(caller))
    }

    /// The state when the request arrives.
    fn state(&self, policy: &Policy) -> State {
        let state = State::new(Assertions::with_new_key());
        let before = |path: &str, caller: Option<Arc<Caller>>| {
            let request = Request::read(&format!("GET {path} HTTP/1.1\nhost: a.example")).unwrap();
            let (mut exchange, now) = (Exchange::default(), Now::default());
            let head = request.head(0, CLIENT, false);
            let supposed = Supposed { caller, operation: None };
            decide_supposing(&supposed, policy, &state, &head, now, &mut exchange)
        };
        if self.breaker_open {
            let Ok(Admitted { request, next: Next::Dispatched(mut dispatched), .. }) =
                before("/hello", None)
            else {
                panic!("it is let through")
            };
            dispatched.report(&request, Some(Outcome::Failure), Now::default());
        }
        for _ in 0..if self.limit_used_up { 3 } else { 0 } {
            let mut ada = Caller::supposed(Label::lossy("ada"));
            ada.workspaces.push(Label::lossy("payments"));
            let _ = before("/warm", Some(ada.into()));
            let _ = before("/hello", None);
        }
        if self.switched_off {
            let scope = Scope { upstream: Label::new("up"), ..Scope::default() };
            let why = ("ada", "it burns");
            let lasts = Duration::from_secs(60);
            state.switches.set(scope, Position::Open, lasts, why, Now::default()).unwrap();
        }
        state.recording.set(!self.disk_full);
        state
    }
}

/// Decides, and returns the checks by its record.
fn decided(world: &World) -> (Exchange, Option<Denial>, String) {
    install_crypto();
    let policy = world.policy();
    let state = world.state(&policy);
    let request = world.request();
    let head = request.head(0, CLIENT, false);
    let (mut exchange, now) = (Exchange::default(), Now::default());
    let supposed = Supposed { caller: world.caller(), operation: None };
    let admitted = decide_supposing(&supposed, &policy, &state, &head, now, &mut exchange);
    let denial = admitted.err();
    let received = Received::request(&policy, &head, None, now);
    let entry =
        Entry { policy: &policy, exchange: &exchange, request_id: "1", received: &received };
    let mut line = Vec::new();
    entry.write(&mut line, &Ended { status: 200, denial: denial.clone(), ..Ended::default() });
    let recorded = Record::read(&line).unwrap().checks().unwrap();
    (exchange, denial, recorded)
}

/// The check that refuses first, derived from the world alone.
fn obstacle(world: &World) -> Option<Step> {
    let has = |is: bool, step: Step| is.then_some(step);
    let path = world.target.split('?').next().unwrap();
    let first = has(world.host == "a b", Step::Host)
        .or(has(path == "/api/%2e%2e/x", Step::Path))
        .or(has(world.host == "b.example" || path == "/other", Step::Route))
        .or(has(world.closed || world.upgrade, Step::Open))
        .or(has(path == "/api/a%2Fb", Step::Path))
        .or(has(world.target.contains("secret"), Step::Query));
    let known = || {
        has(!world.known, Step::Caller)
            .or(has(world.workspace_gone, Step::Workspace))
            .or(has(world.plugin_off, Step::Plugin))
            .or(has(!world.role, Step::Access))
            .or(has(
                world.graphql && world.body != "{\"query\": \"{ stacks { id } }\"}",
                Step::Operation,
            ))
    };
    // A GraphQL query is a read, whatever its route's class.
    let is_action = world.action && !world.public && !world.graphql;
    let two_keys = world.key.is_some_and(|key| key.contains('\n'));
    first
        .or(if world.public { None } else { known() })
        .or(has(world.switched_off, Step::Switches))
        .or(has(world.limit_used_up, Step::RateLimit))
        .or(has(two_keys && !world.public, Step::Idempotency))
        .or(has(world.disk_full && is_action, Step::Audit))
        .or(has(world.breaker_open, Step::Breaker))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_record_reports_which_checks_were_passed_and_which_refused(world in worlds()) {
        let (exchange, denial, recorded) = decided(&world);
        let refused = denial.as_ref().map(Denial::step);
        prop_assert_eq!(refused, obstacle(&world), "{:?}", denial);
        prop_assert_eq!(&recorded, &exchange.steps.sentence(refused));
        let live = steps(&exchange, denial.as_ref(), false);
        prop_assert!(live.contains(&format!("checks       {recorded}\n")), "{live}");
        let passed: Vec<Step> = exchange.steps.passed(refused).collect();
        prop_assert!(denial.is_none() || exchange.steps.last() == refused);
        prop_assert!(!refused.is_some_and(|refused| passed.contains(&refused)));
        // A public route does not authenticate callers.
        let asked = [Step::Caller, Step::Workspace, Step::Plugin, Step::Access];
        let was_asked = |step: &Step| passed.contains(step);
        if world.public {
            prop_assert!(!asked.iter().any(was_asked), "{recorded}");
        } else if passed.contains(&Step::Switches) {
            prop_assert!(asked.iter().all(was_asked), "{recorded}");
        }
    }
}

#[test]
fn an_open_breaker_on_a_public_route_passed_no_caller_check() {
    let world = World {
        public: true,
        closed: false,
        graphql: false,
        action: false,
        plugin_off: false,
        workspace_gone: false,
        limit_used_up: false,
        switched_off: false,
        breaker_open: true,
        disk_full: false,
        host: "a.example",
        target: "/api/x",
        upgrade: false,
        known: false,
        role: false,
        body: "",
        key: None,
    };
    let (_, _, recorded) = decided(&world);
    assert_eq!(
        recorded,
        "host, path, route, open, query, switches, rate_limit, audit passed; breaker refused"
    );
}
