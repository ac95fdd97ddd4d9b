//! A request on record, decided again.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Method, header};

use super::{Decided, Replay, Why, facts, record::Record};
use crate::{
    Denial, Exchange, Head, Now, audit,
    checks::body::{Operation, OperationRules},
    identity::Proof,
    pipeline::{
        reverse::{self, Supposed},
        routes::Route,
    },
    request::{host, normal_form::NormalPath},
};

/// The value set for a parameter whose recorded value is known not to be allowed.
const REFUSED: &str = "%01";
const ANY_TOKEN: HeaderValue = HeaderValue::from_static("Bearer recorded");
const ANY_COOKIE: HeaderValue = HeaderValue::from_static("backstage-auth=recorded");
const ANY_PROTOCOL: HeaderValue = HeaderValue::from_static("ey.recorded.token");

impl Replay {
    pub(super) fn request(
        &mut self,
        record: &Record<'_>,
        listener: usize,
        now: Now,
    ) -> Result<Decided, Why> {
        let proof = facts::proof_of(record)?;
        if proof == Some(Proof::Password) {
            return Err(Why::SignedIn);
        }
        self.write_headers(record, proof);
        let method = Method::from_bytes(record.method.as_bytes()).map_err(|_| Why::Unknown)?;
        let path = record.path.as_deref().unwrap_or_default();
        // If the caller was not known, there may have been a token as well.
        let counted = proof == Some(Proof::ClientCertificate);
        let certificate = record.certificate.as_ref().filter(|_| counted).map(facts::certificate);
        let supposed = Supposed {
            caller: self.supposed(record, proof)?,
            operation: record.graphql.as_ref().map(facts::operation).transpose()?.map(Into::into),
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
            // Only the route knows which parameters matter.
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

    fn route(&self, head: &Head<'_>) -> Option<Arc<Route>> {
        let host = host::of(head).ok()?;
        let path = NormalPath::of(head.path()).ok()?;
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
        // These are decided before anything that a record may lack.
        if let Some(
            D::RouteClosed { .. }
            | D::ClassAdmin { .. }
            | D::UpgradeRefused { .. }
            | D::PathAmbiguous { .. },
        ) = denial
        {
            return Ok(());
        }
        // Whatever else the record held.
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
            // A caller that is no longer in the config is unknown, and one without credentials has none
            // again.
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
        let (Some(recorded), Some(OperationRules::Graphql(rules)), Some(Operation::Graphql { .. })) =
            (&record.graphql, route.body.operations(), &exchange.operation)
        else {
            return Ok(());
        };
        let kind = facts::kind_of(&recorded.kind).ok_or(Why::Unknown)?;
        for field in &recorded.fields {
            let has = |name: &str| field.arguments.0.iter().any(|(known, _)| **known == *name);
            if !rules.arguments_of(kind, &field.name).into_iter().all(has) {
                return Err(Why::Argument);
            }
        }
        Ok(())
    }

    /// The headers that the decision reads.
    fn write_headers(&mut self, record: &Record<'_>, proof: Option<Proof>) {
        let headers = &mut self.headers;
        headers.clear();
        if record.upgrade {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if let Some(recorded) = &record.asked_workspace {
            let name = self.policy.workspaces.header();
            let value = HeaderValue::from_str(recorded);
            let value = value.unwrap_or(HeaderValue::from_static("?"));
            headers.insert(name, value.clone());
            if record.workspace_ambiguous {
                headers.append(name, value);
            }
        }
        if let Some(recorded) = &record.cookie_workspace {
            let pair = format!("{}={}", self.policy.workspaces.cookie(), &**recorded);
            let pair = HeaderValue::from_str(&pair).unwrap_or(HeaderValue::from_static("?"));
            headers.append(header::COOKIE, pair.clone());
            if record.cookie_ambiguous {
                headers.append(header::COOKIE, pair);
            }
        }
        if &*record.code == "idempotency_key_invalid" {
            headers.insert("idempotency-key", HeaderValue::from_static(""));
        }
        // The upstream's credential may be exchanged for the caller's token, so put a token where it was.
        match proof {
            Some(Proof::Token) => _ = headers.insert(header::AUTHORIZATION, ANY_TOKEN),
            Some(Proof::Cookie) => _ = headers.append(header::COOKIE, ANY_COOKIE),
            Some(Proof::WebSocketProtocol) => {
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, ANY_PROTOCOL);
            }
            _ => {}
        }
    }
}

/// Path and query, such that every parameter with a rule is judged like the recorded one.
fn target(path: &str, record: &Record<'_>, route: Option<&Route>) -> Vec<u8> {
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
