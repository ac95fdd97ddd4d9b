//! Decides again about what was recorded, by the same functions, with another policy.
//!
//! Nothing is guessed: what a record does not hold, and what was decided by a state that is gone, is
//! said to be so.

pub mod record;
pub mod turn;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, header};

use crate::{
    Denial, Exchange, Head, Label, Now, Policy, State, audit,
    checks::body::{
        Operation, OperationRules,
        graphql::{self, Argument, Field, Kind},
    },
    denial::step,
    egress::{
        client_hello::{ClientHello, Peek},
        target::Target,
    },
    identity::{Caller, ClientCertificate, LeftOut, Proof, assertion::Assertions},
    pipeline::{
        forward::{self, Call},
        reverse::{self, Supposed},
    },
};
use record::{Record, Text};

/// A policy that decides about what was.
pub struct Replay {
    policy: Policy,
    state: State,
    headers: HeaderMap,
}

/// A decision that was made again.
pub struct Decided {
    /// All that was learned.
    pub exchange: Exchange,
    /// The reason to say no, if there is one.
    pub denial: Option<Denial>,
    /// What was not looked at when it was recorded, and so is not judged here: a call that was
    /// refused by name has no addresses.
    pub unjudged: Option<&'static str>,
}

/// Why something on record cannot be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The record is no exchange or call: an intent, the beginning of a segment.
    NotAnExchange,
    /// The head never became a request.
    NoRequest,
    /// The record is older than its facts.
    Older,
    /// The record has facts that are not known here.
    Newer,
    /// Something that this version does not know stands in it.
    Unknown,
    /// A state decided: a limit, a breaker, a key that could not be fetched.
    State,
    /// Nobody was known to be calling, and somebody must be.
    NoCaller,
    /// The caller signed in here; it did not ask for anything.
    SignedIn,
    /// The issuer that vouched for the caller is not in the config.
    IssuerGone,
    /// The caller was known by a cookie that the route does not take.
    CookieRefused,
    /// The listener is not in the config.
    ListenerGone,
    /// The record holds the path or the host in part.
    InPart,
    /// A query parameter that has a rule now had none.
    Query,
    /// The body was not read then.
    Body,
    /// An argument that has a rule now had none.
    Argument,
    /// What the client said first in a tunnel was not looked at then.
    Hello,
}

/// How a decision that was made again differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was let through, and is refused.
    NewDenial,
    /// It was refused, and is let through.
    NewAllow,
    /// It is refused for another reason.
    Code,
    /// Another route takes it.
    Route,
    /// It goes to another upstream.
    Upstream,
    /// Another rule lets the call through.
    Rule,
}

/// How a record says that a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// It was let through, whatever the upstream did then.
    Allowed,
    /// The rules refused it.
    Denied,
    /// A state refused it: whether the rules would have is not known.
    State,
}

impl Why {
    /// In words.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotAnExchange => "not an exchange (intents, segment beginnings, gaps)",
            Self::NoRequest => "the head never became a request",
            Self::Older => "written before records had all facts",
            Self::Newer => "written by a newer version, with facts that this version does not know",
            Self::Unknown => "it contains something that this version does not know",
            Self::State => "decided by state (limits, breakers, keys, bodies), not by rules",
            Self::NoCaller => {
                "a caller is required, but none was recorded (no token, or a refused one)"
            }
            Self::SignedIn => "it was a sign-in handled here",
            Self::IssuerGone => "the caller's issuer is not in this config",
            Self::CookieRefused => {
                "the caller's token was in a cookie that the route does not accept"
            }
            Self::ListenerGone => "its listener is not in this config",
            Self::InPart => {
                "its path or host was recorded only in part (too long, or it contained something like a token)"
            }
            Self::Query => "a query parameter has a rule that it did not have then",
            Self::Body => "the route reads bodies, but this one was not read then",
            Self::Argument => "a GraphQL argument has a rule that it did not have then",
            Self::Hello => "the client's first bytes were not recorded",
        }
    }
}

impl Record<'_> {
    /// Which checks were passed and which one refused, as the exchange itself said it. Records of
    /// versions that did not write it have nothing.
    pub fn checks(&self) -> Option<String> {
        let step = self.step.as_deref()?;
        if let Some(why) = &self.fallback_for {
            return Some(format!("{why} after {step}: a kept response was served"));
        }
        let passed: Vec<&str> = self.passed.iter().map(|step| &**step).collect();
        Some(step::sentence(&passed, (&*self.decision == "deny").then_some(step), step))
    }

    /// How it ended.
    pub fn was(&self) -> Was {
        if &*self.decision == "allow" {
            return Was::Allowed;
        }
        match &*self.code {
            // It was let through; what came of it is another matter.
            "upstream_unreachable"
            | "upstream_tls"
            | "upstream_reset"
            | "upstream_malformed"
            | "upstream_timeout"
            | "redaction_impossible"
            | "redirect_refused"
            | "connect_timeout"
            | "upstream_slow"
            | "client_slow"
            | "whole_timeout" => Was::Allowed,
            "rate_limited"
            | "limits_unavailable"
            | "idempotency_in_flight"
            | "breaker_open"
            | "switched_off"
            | "audit_unavailable"
            | "pace_exceeded"
            | "tunnels_exhausted"
            | "keys_unavailable"
            | "groups_unavailable"
            | "credential_unavailable"
            | "token_exchange_refused"
            | "body_too_large"
            | "body_timeout"
            | "body_slow"
            | "body_malformed"
            | "hello_timeout"
            | "host_unresolved"
            | "parent_unreachable"
            | "parent_refused"
            | "parent_malformed"
            | "parent_timeout"
            | "internal" => Was::State,
            _ => Was::Denied,
        }
    }
}

impl Decided {
    /// The code, `ok` if it is let through.
    pub fn code(&self) -> &'static str {
        self.denial.as_ref().map_or("ok", Denial::code)
    }

    /// How it differs from what was recorded.
    pub fn change(&self, record: &Record<'_>) -> Option<Change> {
        let is = |was: &Option<Text<'_>>, is: Option<&str>| was.as_deref() == is;
        let route = self.exchange.route.as_deref();
        match (record.was(), &self.denial) {
            (Was::Allowed, Some(_)) => Some(Change::NewDenial),
            (Was::Denied | Was::State, None) => Some(Change::NewAllow),
            (_, Some(denial)) if *denial.code() != *record.code => Some(Change::Code),
            (_, Some(_)) => None,
            (_, None) => {
                let rule = self.exchange.call.as_ref().and_then(|called| called.rule.as_ref());
                if !is(&record.route, route.map(|route| &*route.name)) {
                    Some(Change::Route)
                } else if !is(&record.upstream, route.map(|route| &*route.upstream)) {
                    Some(Change::Upstream)
                } else if !is(&record.egress_rule, rule.map(|rule| &*rule.name)) {
                    Some(Change::Rule)
                } else {
                    None
                }
            }
        }
    }
}

/// What a parameter is given whose value is known not to be an allowed one.
const REFUSED: &str = "%01";
const ANY_TOKEN: HeaderValue = HeaderValue::from_static("Bearer recorded");
const ANY_COOKIE: HeaderValue = HeaderValue::from_static("backstage-auth=recorded");
const ANY_PROTOCOL: HeaderValue = HeaderValue::from_static("ey.recorded.token");

impl Replay {
    /// With this policy, and a state in which nothing has happened and nothing counts.
    pub fn new(policy: Policy) -> Self {
        let state = State::suspended(Assertions::with_new_key());
        Self { policy, state, headers: HeaderMap::new() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides again about what is recorded.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn decide(&mut self, record: &Record<'_>) -> Result<Decided, Why> {
        if record.kind.is_some() {
            return Err(Why::NotAnExchange);
        }
        if record.request_line.is_some() {
            return Err(Why::NoRequest);
        }
        match record.facts {
            0 => return Err(Why::Older),
            audit::FACTS => {}
            _ => return Err(Why::Newer),
        }
        if record.was() == Was::State {
            return Err(Why::State);
        }
        let listener = self.policy.listener(&record.listener).ok_or(Why::ListenerGone)?;
        // No rule of any config makes a difference to these.
        let settled = match &*record.code {
            "host_invalid" => Some(Denial::HostInvalid),
            "target_invalid" => {
                Some(Denial::TargetInvalid(crate::egress::target::TargetFault::HostEmpty))
            }
            _ => None,
        };
        if let Some(denial) = settled {
            let exchange = Exchange::default();
            return Ok(Decided { exchange, denial: Some(denial), unjudged: None });
        }
        if record.path_in_part || record.host_in_part {
            return Err(Why::InPart);
        }
        let now = Now { unix: audit::unix_of(&record.time).ok_or(Why::Unknown)?, ..Now::default() };
        match &record.target {
            Some(target) => self.call(record, listener, target, now),
            None => self.request(record, listener, now),
        }
    }

    fn request(&mut self, record: &Record<'_>, listener: usize, now: Now) -> Result<Decided, Why> {
        let proof = proof_of(record)?;
        if proof == Some(Proof::Password) {
            return Err(Why::SignedIn);
        }
        self.write_headers(record, proof);
        let method = Method::from_bytes(record.method.as_bytes()).map_err(|_| Why::Unknown)?;
        let path = record.path.as_deref().unwrap_or_default();
        // Where nobody was known, there may have been a token beside it.
        let counted = proof == Some(Proof::ClientCertificate);
        let certificate = record.certificate.as_ref().filter(|_| counted).map(certificate);
        let supposed = Supposed {
            caller: self.supposed(record, proof)?,
            operation: record.graphql.as_ref().map(operation).transpose()?.map(Into::into),
        };
        let mut exchange = Exchange::default();
        let mut head = Head {
            listener,
            peer: record.client.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
            tls: record.tls,
            certificate: certificate.as_ref(),
            method: &method,
            target: path.as_bytes(),
            host: record.host.as_deref().map(str::as_bytes),
            headers: &self.headers,
            body: None,
        };
        let target;
        if record.query_malformed || record.query.as_ref().is_some_and(|q| !q.0.is_empty()) {
            // Only a route knows which parameters matter, and only this finds it.
            let route = self.route(&head);
            target = self::target(path, record, route.as_deref());
            head.target = &target;
        }
        let (policy, state) = (&self.policy, &self.state);
        let judged = reverse::judge_supposing(&supposed, policy, state, &head, now, &mut exchange);
        let denial = judged.err();
        self.known(record, proof, &exchange, denial.as_ref())?;
        Ok(Decided { exchange, denial, unjudged: None })
    }

    fn route(&self, head: &Head<'_>) -> Option<Arc<crate::pipeline::routes::Route>> {
        let host = crate::request::host::of(head).ok()?;
        let path = crate::request::normal_form::NormalPath::of(head.path()).ok()?;
        let found =
            self.policy.routes.find(head.listener, host.as_str(), head.method, &path).ok()?;
        Some(found.route)
    }

    /// Whether the record holds all that the decision was made from.
    fn known(
        &self,
        record: &Record<'_>,
        proof: Option<Proof>,
        exchange: &Exchange,
        denial: Option<&Denial>,
    ) -> Result<(), Why> {
        let Some(route) = exchange.route.as_deref() else { return Ok(()) };
        use Denial as D;
        // These come before anything that a record may lack.
        if let Some(
            D::RouteClosed { .. }
            | D::ClassAdmin { .. }
            | D::UpgradeRefused { .. }
            | D::PathAmbiguous { .. },
        ) = denial
        {
            return Ok(());
        }
        // Whatever else it held.
        if matches!(denial, Some(D::QueryRefused { .. })) {
            return Ok(());
        }
        if let Some(query) = &record.query {
            let has = |name: &str| query.0.iter().any(|(known, _)| **known == *name);
            if !record.query_malformed && !route.query.governed().all(|(name, _)| has(name)) {
                return Err(Why::Query);
            }
        }
        if route.options.public {
            return Ok(());
        }
        if proof == Some(Proof::Cookie) && !route.options.cookie {
            return Err(Why::CookieRefused);
        }
        let signs_in = route.body.signs_in();
        if exchange.caller.is_none() {
            // Whoever the config knows no more is nobody; and who came without anything comes
            // without anything again.
            let same = denial == Some(&D::CallerMissing)
                && (proof.is_some()
                    || &*record.code == "caller_missing"
                        && record.certificate.is_none()
                        && !route.options.cookie
                        && !signs_in);
            return if same { Ok(()) } else { Err(Why::NoCaller) };
        }
        if exchange.lack.is_some() && &*record.code != "graphql_malformed" {
            return Err(Why::Body);
        }
        let (Some(asked), Some(OperationRules::Graphql(rules)), Some(Operation::Graphql { .. })) =
            (&record.graphql, route.body.operations(), &exchange.operation)
        else {
            return Ok(());
        };
        let kind = kind_of(&asked.kind).ok_or(Why::Unknown)?;
        for field in &asked.fields {
            let has = |name: &str| field.arguments.0.iter().any(|(known, _)| **known == *name);
            if !rules.arguments_of(kind, &field.name).into_iter().all(has) {
                return Err(Why::Argument);
            }
        }
        Ok(())
    }

    /// The headers that a decision reads, as far as they matter to it.
    fn write_headers(&mut self, record: &Record<'_>, proof: Option<Proof>) {
        let headers = &mut self.headers;
        headers.clear();
        if record.upgrade {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if let Some(asked) = &record.asked_workspace {
            let name = self.policy.workspaces.header();
            let value = HeaderValue::from_str(asked);
            let value = value.unwrap_or(HeaderValue::from_static("?"));
            headers.insert(name, value.clone());
            if record.workspace_ambiguous {
                headers.append(name, value);
            }
        }
        if let Some(asked) = &record.cookie_workspace {
            let pair = format!("{}={}", self.policy.workspaces.cookie(), &**asked);
            let pair = HeaderValue::from_str(&pair).unwrap_or(HeaderValue::from_static("?"));
            headers.append(header::COOKIE, pair.clone());
            if record.cookie_ambiguous {
                headers.append(header::COOKIE, pair);
            }
        }
        if &*record.code == "idempotency_key_invalid" {
            headers.insert("idempotency-key", HeaderValue::from_static(""));
        }
        // What is shown to an upstream may be made from the caller's token: there was one, there.
        match proof {
            Some(Proof::Token) => _ = headers.insert(header::AUTHORIZATION, ANY_TOKEN),
            Some(Proof::Cookie) => _ = headers.append(header::COOKIE, ANY_COOKIE),
            Some(Proof::WebSocketProtocol) => {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, ANY_PROTOCOL);
            }
            _ => {}
        }
    }

    /// The caller, as the record says and the config does. `None` if the certificate or the listener
    /// is to say it again.
    fn supposed(
        &self,
        record: &Record<'_>,
        proof: Option<Proof>,
    ) -> Result<Option<Arc<Caller>>, Why> {
        let (Some(proof), Some(subject)) = (proof, &record.caller) else { return Ok(None) };
        let identity = &self.policy.identity;
        let left_out = |list: &str| record.left_out.iter().any(|out| **out == *list);
        let issuer = record.issuer.as_deref().unwrap_or_default();
        match proof {
            Proof::Token | Proof::Cookie | Proof::WebSocketProtocol | Proof::ProxyHeader => {
                if !identity.has_issuer(issuer) {
                    return Err(Why::IssuerGone);
                }
            }
            Proof::ClientCertificate if record.certificate.is_none() => return Err(Why::Unknown),
            Proof::ClientCertificate | Proof::Listener => return Ok(None),
            Proof::StaticToken => return Ok(identity.of_static_token(subject)),
            Proof::Password => return Ok(identity.of_name(subject)),
            Proof::Ticket => return Ok(identity.named(subject, u64::MAX)),
            Proof::Supposed => {}
        }
        Ok(Some(Arc::new(Caller {
            proof,
            issuer: label(issuer),
            on_behalf_of: record.on_behalf_of.as_deref().map(label),
            roles: labels(&record.roles),
            groups: labels(&record.groups),
            workspaces: labels(&record.workspaces),
            default_workspace: record.default_workspace.as_deref().map(label),
            left_out: LeftOut {
                roles: left_out("roles"),
                groups: left_out("groups"),
                workspaces: left_out("workspaces"),
            },
            plugin: record.caller_plugin.as_deref().map(label),
            ..Caller::supposed(label(subject))
        })))
    }

    fn call(
        &mut self,
        record: &Record<'_>,
        listener: usize,
        target: &str,
        now: Now,
    ) -> Result<Decided, Why> {
        let target = Target::of_connect(target.as_bytes()).map_err(|_| Why::InPart)?;
        let proof = proof_of(record)?;
        let supposed = self.supposed(record, proof)?;
        let is_nobody = &*record.code == "caller_missing";
        let mut exchange = Exchange::default();
        if supposed.is_none() && proof == Some(Proof::Password) {
            // Whoever was taken out of the config has no password any more.
            let denial = Some(Denial::PasswordWrong);
            return Ok(Decided { exchange, denial, unjudged: None });
        }
        let certificate = record.certificate.as_ref().map(certificate);
        let call = Call {
            listener,
            peer: record.client.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
            certificate: certificate.as_ref(),
            authorization: &[],
            target: &target,
        };
        let (policy, state, caller) = (&self.policy, &self.state, supposed.as_ref());
        let decided = forward::decide_supposing(caller, policy, state, &call, now, &mut exchange);
        let named = match decided {
            Ok(named) => named,
            Err(_) if exchange.caller.is_none() && !is_nobody && proof.is_none() => {
                return Err(Why::NoCaller);
            }
            Err(denial) => return Ok(Decided { exchange, denial: Some(denial), unjudged: None }),
        };
        if proof.is_none() && !is_nobody {
            // What was shown was refused; that the listener takes anybody says nothing about it.
            return Err(Why::NoCaller);
        }
        if record.resolved.is_empty() && record.parent.is_none() {
            return match record.was() {
                Was::Denied => {
                    Ok(Decided { exchange, denial: None, unjudged: Some("its addresses") })
                }
                _ => Err(Why::Unknown),
            };
        }
        let ips = |all: &[Text<'_>]| -> Result<Vec<IpAddr>, Why> {
            all.iter().map(|ip| ip.parse().map_err(|_| Why::Unknown)).collect()
        };
        let (found, own) = (ips(&record.resolved)?, ips(&record.resolved_own)?);
        let addressed = match &record.parent {
            // Its name was looked up elsewhere.
            Some(parent) if found.is_empty() => {
                named.pass_on(policy, &label(parent), &own, now, &mut exchange)
            }
            _ => named.choose(policy, &found, &own, now, &mut exchange),
        };
        let addressed = match addressed {
            Ok(addressed) if addressed.must_be_tls(policy) => addressed,
            other => return Ok(Decided { exchange, denial: other.err(), unjudged: None }),
        };
        let peek = match record.hello.as_deref() {
            _ if &*record.method != "CONNECT" => Peek::NotTls,
            Some("tls") => Peek::Hello(ClientHello {
                server_name: record.server_name.as_deref().map(str::to_owned),
                encrypted: record.encrypted_hello,
            }),
            Some("not_tls") => Peek::NotTls,
            Some("malformed") => Peek::Malformed("it was not to be understood"),
            Some(_) => return Err(Why::Unknown),
            None if record.was() == Was::Denied => {
                let unjudged = Some("what the client says first");
                return Ok(Decided { exchange, denial: None, unjudged });
            }
            // It never came to that.
            None if &*record.code != "ok" => {
                return Ok(Decided { exchange, denial: None, unjudged: None });
            }
            None => return Err(Why::Hello),
        };
        let denial = addressed.hello(policy, &peek, &mut exchange).err();
        Ok(Decided { exchange, denial, unjudged: None })
    }
}

/// Path and query, such that every parameter with a rule is judged as the one that came.
fn target(
    path: &str,
    record: &Record<'_>,
    route: Option<&crate::pipeline::routes::Route>,
) -> Vec<u8> {
    let mut target = path.as_bytes().to_vec();
    target.push(b'?');
    if record.query_malformed {
        target.push(0xff);
        return target;
    }
    let rules = route.into_iter().flat_map(|route| route.query.governed());
    for (name, allowed) in rules {
        let of_it = record.query.iter().flat_map(|query| &query.0);
        for value in of_it.filter(|(known, _)| **known == *name).flat_map(|(_, values)| values) {
            let found = match value.starts_with("sha256:") {
                true => allowed.iter().find(|one| *audit::refused_value(one) == **value),
                false => allowed.iter().find(|one| ***one == **value),
            };
            if target.last() != Some(&b'?') {
                target.push(b'&');
            }
            escape(name, &mut target);
            target.push(b'=');
            match found {
                Some(value) => escape(value, &mut target),
                None => target.extend_from_slice(REFUSED.as_bytes()),
            }
        }
    }
    target
}

fn escape(text: &str, out: &mut Vec<u8>) {
    use std::io::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(byte);
        } else {
            write!(out, "%{byte:02X}").expect("memory takes all that is written");
        }
    }
}

fn proof_of(record: &Record<'_>) -> Result<Option<Proof>, Why> {
    record.proof.as_deref().map(|name| Proof::of(name).ok_or(Why::Unknown)).transpose()
}

fn operation(asked: &record::Asked<'_>) -> Result<graphql::Operation, Why> {
    let field = |field: &record::Field<'_>| Field {
        name: (*field.name).into(),
        key: (*field.name).into(),
        arguments: field
            .arguments
            .0
            .iter()
            .map(|(name, text)| Argument {
                name: (**name).into(),
                text: text.as_deref().map(str::to_owned),
            })
            .collect(),
        selected: Vec::new(),
    };
    let kind = kind_of(&asked.kind).ok_or(Why::Unknown)?;
    Ok(graphql::Operation { kind, fields: asked.fields.iter().map(field).collect() })
}

fn kind_of(name: &str) -> Option<Kind> {
    [Kind::Query, Kind::Mutation].into_iter().find(|kind| kind.name() == name)
}

fn certificate(shown: &record::Shown<'_>) -> ClientCertificate {
    ClientCertificate {
        common_name: shown.common_name.as_deref().map(label),
        dns: labels(&shown.dns),
        uris: labels(&shown.uris),
        emails: labels(&shown.emails),
        fingerprint: None,
    }
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap_or_else(|| Label::lossy(text))
}

fn labels(texts: &[Text<'_>]) -> Vec<Label> {
    texts.iter().map(|text| label(text)).collect()
}

#[cfg(test)]
mod tests;
