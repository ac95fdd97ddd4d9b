//! A request as text, and a decision as text. The command line and the scenario pages share it.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    Denial, Exchange, Head,
    identity::Proof,
    limits::rate_limit::{self, Counted},
};

/// A request parsed from text.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The headers, `host` among them.
    pub headers: HeaderMap,
    /// The body, if there is one.
    pub body: Option<String>,
}

impl Request {
    /// Parses an HTTP/1.1 request: a request line, headers, and after an empty line the body.
    ///
    /// # Errors
    /// The line that cannot be parsed.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.trim().lines();
        let first = lines.next().unwrap_or_default();
        let mut parts = first.split_whitespace();
        let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
            return Err(format!("`{first}` is not a request line; write `GET /path HTTP/1.1`"));
        };
        let mut request = Self {
            method: method.parse().map_err(|_| format!("`{method}` is not a method"))?,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            body: None,
        };
        for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
            request.header(line)?;
        }
        let body = lines.collect::<Vec<_>>().join("\n");
        request.body = Some(body).filter(|body| !body.is_empty());
        Ok(request)
    }

    /// Adds a header, written as `name: value`.
    ///
    /// # Errors
    /// If the text is not a header.
    pub fn header(&mut self, line: &str) -> Result<(), String> {
        let wrong = || format!("`{line}` is not a header; write `name: value`");
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        self.headers.append(name, value);
        Ok(())
    }

    /// The head that a decision is made from.
    pub fn head(&self, listener: usize, peer: std::net::IpAddr, tls: bool) -> Head<'_> {
        Head {
            listener,
            peer,
            tls,
            certificate: None,
            method: &self.method,
            target: self.target.as_bytes(),
            host: self.headers.get("host").map(HeaderValue::as_bytes),
            headers: &self.headers,
            body: self.body.as_deref().map(str::as_bytes),
        }
    }
}

/// A decision in one line, as the scenario pages have it.
pub fn verdict(exchange: &Exchange, denial: Option<&Denial>) -> String {
    match (denial, &exchange.call) {
        (Some(denial), _) => {
            format!("deny {} {}: {denial}", denial.status().as_u16(), denial.code())
        }
        (None, Some(call)) => match &call.rule {
            Some(rule) => format!("allow by rule {}, at {}", rule.name, rule.place),
            None => "allow, because the listener only reports".to_owned(),
        },
        (None, None) => match &exchange.route {
            Some(route) => format!("allow {} to {}", route.name, route.upstream),
            None => "allow".to_owned(),
        },
    }
}

/// Every step of a decision with what it found, and where the operator wrote it.
/// `asks_breaker` if a breaker let it through.
pub fn steps(exchange: &Exchange, denial: Option<&Denial>, asks_breaker: bool) -> String {
    let mut out = String::new();
    let mut step = |name: &str, found: Option<String>| {
        if let Some(found) = found {
            let _ = writeln!(out, "{name:<12} {found}");
        }
    };
    step("client", exchange.client.map(|client| client.to_string()));
    let call = exchange.call.as_ref();
    step("target", call.map(|call| call.target.to_string()));
    step("path", exchange.path.as_ref().map(|path| path.as_str().to_owned()));
    step(
        "route",
        exchange
            .route
            .as_ref()
            .map(|route| format!("{} ({}), at {}", route.name, route.template, route.place)),
    );
    step(
        "yielded",
        exchange.yielded.as_ref().map(|row| {
            format!("{} ({}), which is not opened, at {}", row.name, row.template, row.place)
        }),
    );
    step("operation", exchange.operation.as_ref().map(|operation| operation.label().to_string()));
    step("class", exchange.class().map(|class| class.name().to_owned()));
    step(
        "plugin",
        exchange.route.as_ref().and_then(|r| r.plugin.as_ref()).map(ToString::to_string),
    );
    step(
        "caller",
        exchange.caller.as_ref().map(|caller| {
            let list = |name: &str, labels: &[crate::Label]| match labels {
                [] => String::new(),
                labels => format!(", {name} {labels:?}"),
            };
            let vouched = match caller.proof {
                Proof::Supposed => " (named with --as; no credential was verified)".to_owned(),
                proof => format!(" by {} ({})", caller.issuer, proof.name()),
            };
            format!(
                "{}{vouched}{}{}{}",
                caller.subject,
                list("roles", &caller.roles),
                list("groups", &caller.groups),
                list("workspaces", &caller.workspaces),
            )
        }),
    );
    step("plugin", call.and_then(|call| call.plugin.as_ref()).map(ToString::to_string));
    step("workspace", exchange.workspace.as_ref().map(|workspace| workspace.name.to_string()));
    for limit in limits(exchange, denial) {
        step("limit", Some(limit));
    }
    step("breaker", asks_breaker.then(|| "lets it through".to_owned()));
    step("would deny", call.and_then(|call| call.would_deny).map(str::to_owned));
    step(
        "credential",
        exchange.credential.as_ref().map(|shown| format!("{}, in `{}`", shown.name, shown.header)),
    );
    step("checks", Some(exchange.steps.sentence(denial.map(Denial::step))));
    step("verdict", Some(verdict(exchange, denial)));
    out
}

/// The limits that a request counted against; empty if it did not reach them.
fn limits(exchange: &Exchange, denial: Option<&Denial>) -> Vec<String> {
    let status = match denial {
        Some(Denial::RateLimited(over)) => Some(&over.status),
        _ => exchange.quota.as_ref(),
    };
    let counted = status.map(|status| Counted {
        status,
        limits: exchange.route.as_ref().map(|route| &route.limits),
        caller: exchange.caller.as_deref(),
        workspace: exchange.workspace.as_ref(),
        client: exchange.client,
    });
    counted.map_or_else(Vec::new, |counted| rate_limit::describe(&counted))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::steps;
    use crate::{
        Exchange, Label,
        identity::{Caller, Proof},
    };

    #[test]
    fn a_caller_is_printed_with_its_proof() {
        let line = |caller: Caller| {
            let exchange = Exchange { caller: Some(Arc::new(caller)), ..Exchange::default() };
            steps(&exchange, None, false).lines().next().map(str::to_owned)
        };
        let ada = || Caller::supposed(Label::lossy("ada"));
        let named = Caller { roles: vec![Label::lossy("reader")], ..ada() };
        assert_eq!(
            line(named).as_deref(),
            Some(
                "caller       ada (named with --as; no credential was verified), roles [\"reader\"]"
            )
        );
        let verified = Caller { issuer: Label::lossy("idp"), proof: Proof::Token, ..ada() };
        assert_eq!(line(verified).as_deref(), Some("caller       ada by idp (token)"));
    }
}
