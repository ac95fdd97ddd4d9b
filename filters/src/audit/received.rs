//! A request as its record describes it, apart from the connection that it came on: the connection may
//! be gone when the record is written.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, header::HeaderName};

use crate::{
    Head, Now, Policy,
    request::{certificate::ClientCertificate, head::offers_websocket, trace_context},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request as its record describes it. There is one for each record, and no way to copy it.
#[derive(Debug)]
pub struct Received {
    pub(super) at: Now,
    pub(super) listener: usize,
    pub(super) peer: IpAddr,
    pub(super) tls: bool,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    pub(super) method: Method,
    pub(super) host: Option<Box<[u8]>>,
    /// Path and query. The path is recorded only if it has no normal form.
    pub(super) target: Box<[u8]>,
    pub(super) traceparent: Option<HeaderValue>,
    pub(super) offers_websocket: bool,
    pub(super) workspace: Named,
    pub(super) cookie: Named,
    pub(super) idempotency_key: Option<HeaderValue>,
}

/// What a request names in a place where it should name one thing.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) first: Option<HeaderValue>,
    pub(super) several: bool,
}

/// The connection that a call on a forward listener came on.
#[derive(Debug)]
pub struct CallConnection {
    /// The listener, as the policy numbers them.
    pub listener: usize,
    /// The address that connected to us.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The client certificate that was verified, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Received {
    /// A request on a reverse listener. `certificate` is that of its head, to be kept.
    pub fn request(
        policy: &Policy,
        head: &Head<'_>,
        certificate: Option<Arc<ClientCertificate>>,
        at: Now,
    ) -> Self {
        let rules = &policy.workspaces;
        let cookies = rules.cookies(head.headers);
        let value = |bytes: &[u8]| {
            // The bytes are a part of a header's value.
            HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static("?"))
        };
        Self {
            at,
            listener: head.listener,
            peer: head.peer,
            tls: head.tls,
            certificate,
            method: head.method.clone(),
            host: head.host.map(Box::from),
            target: Box::from(head.target),
            traceparent: head.headers.get(TRACEPARENT).cloned(),
            offers_websocket: offers_websocket(head.headers),
            workspace: Named::header(head.headers, rules.header()),
            cookie: cookies.map_or_else(Named::default, |cookies| Named {
                first: Some(value(cookies.first)),
                several: cookies.several,
            }),
            idempotency_key: head.headers.get(IDEMPOTENCY_KEY).cloned(),
        }
    }

    /// A call on a forward listener. `named` is what it calls, as received; `path` is empty for a tunnel.
    /// Neither its query nor its workspace header is recorded.
    pub fn call(
        connection: CallConnection,
        method: Method,
        (named, path): (&[u8], &[u8]),
        traceparent: Option<HeaderValue>,
        at: Now,
    ) -> Self {
        let path = path.split(|b| *b == b'?').next().unwrap_or_default();
        Self {
            at,
            listener: connection.listener,
            peer: connection.peer,
            tls: connection.tls,
            certificate: connection.certificate,
            method,
            host: Some(Box::from(named)),
            target: Box::from(path),
            traceparent,
            offers_websocket: false,
            workspace: Named::default(),
            cookie: Named::default(),
            idempotency_key: None,
        }
    }

    /// When its head was complete.
    pub fn at(&self) -> Now {
        self.at
    }

    /// The method.
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The trace it belongs to, if the client named one.
    pub(super) fn trace_id(&self) -> Option<&str> {
        trace_context::trace_id(self.traceparent.as_ref()?.as_bytes())
    }

    /// The path and the query without its question mark, as received.
    pub(super) fn path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        match self.target.iter().position(|b| *b == b'?') {
            Some(mark) => (&self.target[..mark], Some(&self.target[mark + 1..])),
            None => (&self.target, None),
        }
    }
}

impl Named {
    fn header(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut lines = headers.get_all(name).iter();
        Self { first: lines.next().cloned(), several: lines.next().is_some() }
    }
}
