//! Every reason for a refusal, each with a status, a stable code and a sentence.

pub mod step;

mod cause;
mod decided_by;
mod lack;
mod quota;
mod samples;
mod target_fault;
mod token_fault;

use std::{fmt, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{Label, denial::step::Step};

pub use cause::Cause;
pub use decided_by::DecidedBy;
pub use lack::Lack;
pub use quota::{Of, Over, QuotaStatus};
pub use target_fault::TargetFault;
pub use token_fault::TokenFault;

/// Address classes that an operator may want to allow; the others are hardly ever intended.
const OFTEN_MEANT: [&str; 4] = ["loopback", "private", "shared_nat", "unique_local"];

/// A reason for a refusal. A code, once released, never changes its meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum Denial {
    /// The path can be read in two ways.
    PathAmbiguous { why: &'static str },
    /// The `Host` is missing or malformed.
    HostInvalid,
    /// No route on this listener is for this host.
    HostUnknown { host: Label },
    /// No route matches the request.
    RouteUnknown,
    /// The matching route is closed.
    RouteClosed { route: Label },
    /// The route is of class `admin`, which always refuses.
    ClassAdmin { route: Label },
    /// The route allows no WebSocket.
    UpgradeRefused { route: Label },
    /// A query parameter has a value that is not allowed.
    QueryRefused { parameter: Label },
    /// No token and no accepted client certificate.
    CallerMissing,
    /// The request has more than one `Authorization`, or tokens in two places.
    AuthorizationAmbiguous,
    /// The token is invalid.
    Token(TokenFault),
    /// The token is valid, but matches none of the issuer's `callers`.
    CallerUnknown { issuer: Label, subject: Label },
    /// The issuer's keys could not be fetched, or are too old.
    KeysUnavailable { issuer: Label },
    /// The caller's groups could not be fetched.
    GroupsUnavailable { issuer: Label },
    /// The issuer left the groups out of the token because there are too many, and they would decide.
    GroupsLeftOut { issuer: Label },
    /// The request must be for a workspace, and names none.
    WorkspaceMissing,
    /// The request names two workspaces.
    WorkspaceAmbiguous,
    /// No such workspace is declared.
    WorkspaceUnknown { workspace: Label },
    /// The caller is not a member.
    WorkspaceNotGranted { workspace: Label },
    /// The plugin is off for the workspace.
    PluginDisabled { plugin: Label, workspace: Label },
    /// An operator's switch refuses it for now.
    SwitchedOff { scope: Arc<str>, reason: Arc<str>, retry_after: Duration },
    /// The caller has none of the roles, groups or names that the route requires.
    AccessDenied { route: Label },
    /// Too many requests.
    RateLimited(Box<Over>),
    /// A shared limit cannot be counted now.
    LimitsUnavailable,
    /// An exchange with the same idempotency key is under way.
    IdempotencyInFlight,
    /// The idempotency key is too long, or there are two.
    IdempotencyKeyInvalid,
    /// The upstream's circuit breaker is open.
    BreakerOpen { upstream: Label, retry_after: Duration, cause: Cause },
    /// The action could not be recorded.
    AuditUnavailable,
    /// The upstream's quota would delay it for too long.
    PaceExceeded { upstream: Label, limit: config::Limit, retry_after: Duration },
    /// The body is not a GraphQL request with one meaning.
    GraphqlMalformed { why: &'static str },
    /// No rule allows the operation.
    GraphqlRefused { operation: &'static str, field: Label },
    /// The resource that the request names is not the workspace's.
    ResourceRefused { kind: Label, name: Label },
    /// There is no credential for the upstream, and none could be fetched.
    CredentialUnavailable { credential: Label },
    /// The upstream's credential is exchanged for the caller's token, and the caller proved itself
    /// otherwise.
    CallerTokenMissing { credential: Label },
    /// The issuer refused to exchange the caller's token for the upstream's credential.
    TokenExchangeRefused { credential: Label, cause: Label },
    /// The body is larger than the route allows.
    BodyTooLarge { bytes_max: u64 },
    /// The client stopped sending its body.
    BodyTimeout,
    /// The client sends its body more slowly than the listener's minimum rate.
    BodySlow { rate_min: u64 },
    /// The client reads the response more slowly than the listener's minimum rate, or stopped reading.
    ClientSlow { rate_min: u64 },
    /// The body ended early or its framing is malformed.
    BodyMalformed,
    /// Nothing listens at the upstream, or its name has no address.
    UpstreamUnreachable { upstream: Label },
    /// The TLS handshake with the upstream failed.
    UpstreamTls { upstream: Label },
    /// The upstream closed or reset the connection.
    UpstreamReset { upstream: Label },
    /// The upstream's response is not HTTP, or can be read in two ways.
    UpstreamMalformed { upstream: Label, why: &'static str },
    /// The response redirects to an address of our own network.
    RedirectRefused { upstream: Label, class: &'static str },
    /// The upstream's response could not be parsed for redaction.
    RedactionImpossible { upstream: Label },
    /// No connection in time.
    ConnectTimeout { upstream: Label },
    /// No response, or no more of it, in time.
    UpstreamTimeout { upstream: Label },
    /// No response within the exchange's whole deadline.
    WholeTimeout { upstream: Label },
    /// The upstream sends its response more slowly than its minimum rate.
    UpstreamSlow { upstream: Label, rate_min: u64 },
    /// The target of a call is not a host and port.
    TargetInvalid(TargetFault),
    /// No rule allows this caller to call this host.
    HostRefused {
        target: Label,
        plugin: Option<Label>,
        /// Whether a rule allows the host to other callers.
        for_others: bool,
    },
    /// The host has no address that may be called.
    AddressRefused { target: Label, address: Label, class: &'static str },
    /// The first bytes in a tunnel are not TLS for the requested host.
    HelloRefused { target: Label, why: &'static str },
    /// The client sent nothing in a tunnel that must carry TLS.
    HelloTimeout,
    /// Too many concurrent tunnels.
    TunnelsExhausted { name: Label, max: u32 },
    /// The name of a called host has no address, or none in time.
    HostUnresolved { target: Label },
    /// The parent proxy is unreachable.
    ParentUnreachable { parent: Label },
    /// The parent proxy refused.
    ParentRefused { parent: Label, status: u16 },
    /// The parent proxy's response is not a proxy's.
    ParentMalformed { parent: Label },
    /// The parent proxy did not respond in time.
    ParentTimeout { parent: Label },
    /// The password is not the caller's.
    PasswordWrong,
    /// Stagedoor itself failed. Never expected; the log has the reason.
    Internal,
    /// The process stopped during this check. Nothing was sent to the upstream, and no client reads it: its
    /// connection ends with the process.
    Stopping {
        /// The check.
        during: Step,
    },
}

impl Denial {
    /// The status the client sees.
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The stable code, for clients, records and metrics.
    pub fn code(&self) -> &'static str {
        self.row().1
    }

    /// The check that refuses with this denial. No catch-all here either.
    pub fn step(&self) -> Step {
        match self {
            Self::TargetInvalid(_) => Step::Target,
            Self::HostInvalid => Step::Host,
            Self::PathAmbiguous { .. } => Step::Path,
            Self::HostUnknown { .. } | Self::RouteUnknown => Step::Route,
            Self::RouteClosed { .. } | Self::ClassAdmin { .. } | Self::UpgradeRefused { .. } => {
                Step::Open
            }
            Self::QueryRefused { .. } => Step::Query,
            Self::CallerMissing
            | Self::AuthorizationAmbiguous
            | Self::Token(_)
            | Self::CallerUnknown { .. }
            | Self::KeysUnavailable { .. }
            | Self::GroupsUnavailable { .. }
            | Self::PasswordWrong => Step::Caller,
            Self::WorkspaceMissing
            | Self::WorkspaceAmbiguous
            | Self::WorkspaceUnknown { .. }
            | Self::WorkspaceNotGranted { .. } => Step::Workspace,
            Self::PluginDisabled { .. } => Step::Plugin,
            Self::GroupsLeftOut { .. }
            | Self::AccessDenied { .. }
            | Self::ResourceRefused { .. } => Step::Access,
            Self::GraphqlMalformed { .. } | Self::GraphqlRefused { .. } => Step::Operation,
            Self::SwitchedOff { .. } => Step::Switches,
            Self::HostRefused { .. } => Step::EgressRule,
            Self::RateLimited(_) | Self::LimitsUnavailable => Step::RateLimit,
            Self::IdempotencyInFlight | Self::IdempotencyKeyInvalid => Step::Idempotency,
            Self::TunnelsExhausted { .. } => Step::Tunnels,
            Self::AuditUnavailable => Step::Audit,
            Self::BodyTooLarge { .. }
            | Self::BodyTimeout
            | Self::BodySlow { .. }
            | Self::BodyMalformed => Step::RequestBody,
            Self::BreakerOpen { .. } => Step::Breaker,
            Self::PaceExceeded { .. } => Step::Pace,
            Self::CredentialUnavailable { .. }
            | Self::CallerTokenMissing { .. }
            | Self::TokenExchangeRefused { .. } => Step::Credential,
            Self::HostUnresolved { .. } | Self::AddressRefused { .. } => Step::Address,
            Self::UpstreamUnreachable { .. }
            | Self::UpstreamTls { .. }
            | Self::UpstreamReset { .. }
            | Self::UpstreamMalformed { .. }
            | Self::ConnectTimeout { .. }
            | Self::UpstreamTimeout { .. }
            | Self::WholeTimeout { .. }
            | Self::ParentUnreachable { .. }
            | Self::ParentRefused { .. }
            | Self::ParentMalformed { .. }
            | Self::ParentTimeout { .. }
            // Whatever fails, the request is being forwarded.
            | Self::Internal => Step::Upstream,
            Self::Stopping { during } => *during,
            Self::HelloRefused { .. } | Self::HelloTimeout => Step::ClientHello,
            Self::RedirectRefused { .. }
            | Self::RedactionImpossible { .. }
            | Self::UpstreamSlow { .. }
            | Self::ClientSlow { .. } => Step::Response,
        }
    }

    /// The table. There is no catch-all: a new denial does not compile without a row.
    fn row(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::PathAmbiguous { .. } => (S::BAD_REQUEST, "path_ambiguous"),
            Self::HostInvalid => (S::BAD_REQUEST, "host_invalid"),
            Self::HostUnknown { .. } => (S::MISDIRECTED_REQUEST, "host_unknown"),
            Self::RouteUnknown => (S::FORBIDDEN, "route_unknown"),
            Self::RouteClosed { .. } => (S::FORBIDDEN, "route_closed"),
            Self::ClassAdmin { .. } => (S::FORBIDDEN, "class_admin"),
            Self::UpgradeRefused { .. } => (S::FORBIDDEN, "upgrade_refused"),
            Self::QueryRefused { .. } => (S::FORBIDDEN, "query_refused"),
            Self::CallerMissing => (S::UNAUTHORIZED, "caller_missing"),
            Self::AuthorizationAmbiguous => (S::BAD_REQUEST, "authorization_ambiguous"),
            Self::Token(fault) => (S::UNAUTHORIZED, fault.code()),
            Self::CallerUnknown { .. } => (S::FORBIDDEN, "caller_unknown"),
            Self::KeysUnavailable { .. } => (S::SERVICE_UNAVAILABLE, "keys_unavailable"),
            Self::GroupsUnavailable { .. } => (S::SERVICE_UNAVAILABLE, "groups_unavailable"),
            Self::GroupsLeftOut { .. } => (S::FORBIDDEN, "groups_left_out"),
            Self::WorkspaceMissing => (S::BAD_REQUEST, "workspace_missing"),
            Self::WorkspaceAmbiguous => (S::BAD_REQUEST, "workspace_ambiguous"),
            Self::WorkspaceUnknown { .. } => (S::FORBIDDEN, "workspace_unknown"),
            Self::WorkspaceNotGranted { .. } => (S::FORBIDDEN, "workspace_not_granted"),
            Self::PluginDisabled { .. } => (S::FORBIDDEN, "plugin_disabled"),
            Self::SwitchedOff { .. } => (S::SERVICE_UNAVAILABLE, "switched_off"),
            Self::AccessDenied { .. } => (S::FORBIDDEN, "access_denied"),
            Self::RateLimited(_) => (S::TOO_MANY_REQUESTS, "rate_limited"),
            Self::LimitsUnavailable => (S::SERVICE_UNAVAILABLE, "limits_unavailable"),
            Self::IdempotencyInFlight => (S::CONFLICT, "idempotency_in_flight"),
            Self::IdempotencyKeyInvalid => (S::BAD_REQUEST, "idempotency_key_invalid"),
            Self::BreakerOpen { .. } => (S::SERVICE_UNAVAILABLE, "breaker_open"),
            Self::AuditUnavailable => (S::SERVICE_UNAVAILABLE, "audit_unavailable"),
            Self::PaceExceeded { .. } => (S::TOO_MANY_REQUESTS, "pace_exceeded"),
            Self::GraphqlMalformed { .. } => (S::BAD_REQUEST, "graphql_malformed"),
            Self::GraphqlRefused { .. } => (S::FORBIDDEN, "graphql_refused"),
            Self::ResourceRefused { .. } => (S::FORBIDDEN, "resource_refused"),
            Self::CredentialUnavailable { .. } => {
                (S::SERVICE_UNAVAILABLE, "credential_unavailable")
            }
            Self::CallerTokenMissing { .. } => (S::UNAUTHORIZED, "caller_token_missing"),
            Self::TokenExchangeRefused { .. } => (S::FORBIDDEN, "token_exchange_refused"),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout"),
            Self::BodySlow { .. } => (S::REQUEST_TIMEOUT, "body_slow"),
            Self::ClientSlow { .. } => (S::REQUEST_TIMEOUT, "client_slow"),
            Self::BodyMalformed => (S::BAD_REQUEST, "body_malformed"),
            Self::UpstreamUnreachable { .. } => (S::BAD_GATEWAY, "upstream_unreachable"),
            Self::UpstreamTls { .. } => (S::BAD_GATEWAY, "upstream_tls"),
            Self::UpstreamReset { .. } => (S::BAD_GATEWAY, "upstream_reset"),
            Self::UpstreamMalformed { .. } => (S::BAD_GATEWAY, "upstream_malformed"),
            Self::RedirectRefused { .. } => (S::BAD_GATEWAY, "redirect_refused"),
            Self::RedactionImpossible { .. } => (S::BAD_GATEWAY, "redaction_impossible"),
            Self::ConnectTimeout { .. } => (S::GATEWAY_TIMEOUT, "connect_timeout"),
            Self::UpstreamTimeout { .. } => (S::GATEWAY_TIMEOUT, "upstream_timeout"),
            Self::WholeTimeout { .. } => (S::GATEWAY_TIMEOUT, "whole_timeout"),
            Self::UpstreamSlow { .. } => (S::GATEWAY_TIMEOUT, "upstream_slow"),
            Self::TargetInvalid(_) => (S::BAD_REQUEST, "target_invalid"),
            Self::HostRefused { .. } => (S::FORBIDDEN, "host_refused"),
            Self::AddressRefused { .. } => (S::FORBIDDEN, "address_refused"),
            Self::HelloRefused { .. } => (S::FORBIDDEN, "hello_refused"),
            Self::HelloTimeout => (S::REQUEST_TIMEOUT, "hello_timeout"),
            Self::TunnelsExhausted { .. } => (S::TOO_MANY_REQUESTS, "tunnels_exhausted"),
            Self::HostUnresolved { .. } => (S::BAD_GATEWAY, "host_unresolved"),
            Self::ParentUnreachable { .. } => (S::BAD_GATEWAY, "parent_unreachable"),
            Self::ParentRefused { .. } => (S::BAD_GATEWAY, "parent_refused"),
            Self::ParentMalformed { .. } => (S::BAD_GATEWAY, "parent_malformed"),
            Self::ParentTimeout { .. } => (S::GATEWAY_TIMEOUT, "parent_timeout"),
            Self::PasswordWrong => (S::UNAUTHORIZED, "password_wrong"),
            Self::Internal => (S::BAD_GATEWAY, "internal"),
            Self::Stopping { .. } => (S::SERVICE_UNAVAILABLE, "stopping"),
        }
    }

    /// How long the client should wait before it retries, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(over) => Some(over.status.reset),
            Self::BreakerOpen { retry_after, .. }
            | Self::SwitchedOff { retry_after, .. }
            | Self::PaceExceeded { retry_after, .. } => Some(*retry_after),
            Self::IdempotencyInFlight | Self::LimitsUnavailable | Self::TunnelsExhausted { .. } => {
                Some(Duration::from_secs(1))
            }
            Self::KeysUnavailable { .. }
            | Self::GroupsUnavailable { .. }
            | Self::AuditUnavailable
            | Self::CredentialUnavailable { .. } => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// `WWW-Authenticate` (RFC 6750 3), where the client could try again with other credentials.
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::CallerMissing | Self::CallerTokenMissing { .. } => {
                Some("Bearer realm=\"stagedoor\"")
            }
            Self::AuthorizationAmbiguous => {
                Some("Bearer realm=\"stagedoor\", error=\"invalid_request\"")
            }
            Self::Token(_) => Some("Bearer realm=\"stagedoor\", error=\"invalid_token\""),
            _ => None,
        }
    }

    /// Whether the upstream, not we, is the reason.
    pub fn is_upstream_failure(&self) -> bool {
        matches!(
            self,
            Self::UpstreamUnreachable { .. }
                | Self::UpstreamTls { .. }
                | Self::UpstreamReset { .. }
                | Self::UpstreamMalformed { .. }
                | Self::ConnectTimeout { .. }
                | Self::UpstreamTimeout { .. }
                | Self::WholeTimeout { .. }
                // The statuses by which a proxy reports that it cannot reach the host.
                | Self::ParentRefused { status: 502..=504, .. }
                | Self::UpstreamSlow { .. }
        )
    }
}

/// The sentence, for the operator; a client sees it only where `detail: full`.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathAmbiguous { why } => write!(f, "the path can be read in two ways: {why}"),
            Self::HostInvalid => write!(f, "the host is missing or malformed"),
            Self::HostUnknown { host } => write!(f, "no route has host `{host}`"),
            Self::RouteUnknown => write!(f, "no route matches this request"),
            Self::RouteClosed { route } => write!(f, "route `{route}` is closed"),
            Self::ClassAdmin { route } => {
                write!(f, "route `{route}` is of class admin, which never passes")
            }
            Self::UpgradeRefused { route } => write!(f, "route `{route}` does not allow upgrades"),
            Self::QueryRefused { parameter } => {
                write!(f, "query parameter `{parameter}` has a value that is not allowed")
            }
            Self::CallerMissing => write!(f, "no token"),
            Self::AuthorizationAmbiguous => write!(f, "more than one token"),
            Self::Token(fault) => fault.fmt(f),
            Self::CallerUnknown { issuer, subject } => {
                write!(
                    f,
                    "none of the `callers` of issuer `{issuer}` matches the token of `{subject}`"
                )
            }
            Self::KeysUnavailable { issuer } => write!(f, "no usable keys from issuer `{issuer}`"),
            Self::GroupsUnavailable { issuer } => {
                write!(f, "issuer `{issuer}` did not return the caller's groups")
            }
            Self::GroupsLeftOut { issuer } => {
                write!(
                    f,
                    "issuer `{issuer}` left the caller's groups out of the token because there are too many; make it send fewer (docs/tokens.md)"
                )
            }
            Self::WorkspaceMissing => write!(f, "the request names no workspace"),
            Self::WorkspaceAmbiguous => write!(f, "the request names two workspaces"),
            Self::WorkspaceUnknown { workspace } => write!(f, "no workspace `{workspace}`"),
            Self::WorkspaceNotGranted { workspace } => {
                write!(f, "the caller is not a member of workspace `{workspace}`")
            }
            Self::PluginDisabled { plugin, workspace } => {
                write!(f, "plugin `{plugin}` is off for workspace `{workspace}`")
            }
            Self::SwitchedOff { scope, reason, .. } => {
                write!(f, "an operator has switched off {scope}: {reason}")
            }
            Self::AccessDenied { route } => {
                write!(
                    f,
                    "the caller has none of the roles, groups or names that route `{route}` requires"
                )
            }
            Self::RateLimited(over) => over.fmt(f),
            Self::LimitsUnavailable => {
                write!(f, "the store that counts limits is unreachable")
            }
            Self::IdempotencyInFlight => {
                write!(f, "a request with the same idempotency key is in flight")
            }
            Self::IdempotencyKeyInvalid => {
                write!(f, "the idempotency key is repeated or longer than 255 characters")
            }
            Self::BreakerOpen { upstream, cause: Cause::Failures, .. } => {
                write!(
                    f,
                    "upstream `{upstream}` has an open circuit breaker: it responded with failures"
                )
            }
            Self::BreakerOpen { upstream, cause: Cause::NoResponse, .. } => {
                write!(f, "upstream `{upstream}` has an open circuit breaker: it did not respond")
            }
            Self::AuditUnavailable => write!(f, "the action cannot be recorded"),
            Self::PaceExceeded { upstream, .. } => {
                write!(f, "the request would have to wait too long for its turn at `{upstream}`")
            }
            Self::GraphqlMalformed { why } => write!(f, "the GraphQL request is refused: {why}"),
            Self::GraphqlRefused { operation, field } => {
                write!(f, "no rule of the route allows `{operation} {field}`")
            }
            Self::ResourceRefused { kind, name } => {
                write!(f, "`{name}` is not a `{kind}` in the workspace's `resources`")
            }
            Self::CredentialUnavailable { credential } => {
                write!(f, "credential `{credential}` is not available")
            }
            Self::CallerTokenMissing { credential } => {
                write!(
                    f,
                    "credential `{credential}` needs the caller's token, and the request has none that can be used"
                )
            }
            Self::TokenExchangeRefused { credential, cause } => {
                write!(
                    f,
                    "the issuer of credential `{credential}` refused to exchange the caller's token: {cause}"
                )
            }
            Self::BodyTooLarge { bytes_max } => {
                write!(f, "the body is larger than {bytes_max} bytes")
            }
            Self::BodyTimeout => write!(f, "the client stopped sending its body"),
            Self::BodySlow { rate_min } => {
                write!(f, "the client sends its body at less than {rate_min} bytes a second")
            }
            Self::ClientSlow { rate_min } => {
                write!(f, "the client reads the response at less than {rate_min} bytes a second")
            }
            Self::BodyMalformed => write!(f, "the body is incomplete or malformed"),
            Self::UpstreamUnreachable { upstream } => {
                write!(f, "upstream `{upstream}` cannot be reached")
            }
            Self::UpstreamTls { upstream } => {
                write!(f, "the TLS handshake with upstream `{upstream}` failed")
            }
            Self::UpstreamReset { upstream } => {
                write!(f, "upstream `{upstream}` closed the connection")
            }
            Self::UpstreamMalformed { upstream, why } => {
                write!(f, "the response of upstream `{upstream}` is refused: {why}")
            }
            Self::RedirectRefused { upstream, class } => {
                write!(
                    f,
                    "the response of upstream `{upstream}` redirects to an address that is {class}"
                )
            }
            Self::RedactionImpossible { upstream } => {
                write!(f, "the response of upstream `{upstream}` cannot be parsed for redaction")
            }
            Self::ConnectTimeout { upstream } => {
                write!(f, "connecting to upstream `{upstream}` timed out")
            }
            Self::UpstreamTimeout { upstream } => {
                write!(f, "upstream `{upstream}` did not respond in time")
            }
            Self::WholeTimeout { upstream } => {
                write!(f, "upstream `{upstream}` did not respond within the `total` timeout")
            }
            Self::UpstreamSlow { upstream, rate_min } => {
                write!(
                    f,
                    "upstream `{upstream}` sends its response at less than {rate_min} bytes a second"
                )
            }
            Self::TargetInvalid(fault) => fault.fmt(f),
            Self::HostRefused { target, plugin: Some(plugin), for_others: true } => {
                write!(f, "no rule lets plugin `{plugin}` call `{target}`; other plugins may")
            }
            Self::HostRefused { target, plugin: None, for_others: true } => {
                write!(f, "no rule lets this caller call `{target}`; other callers may")
            }
            Self::HostRefused { target, .. } => write!(f, "no rule allows `{target}`"),
            Self::AddressRefused { target, address, class } => {
                write!(f, "`{target}` has address {address}, which is {class}")?;
                if !OFTEN_MEANT.contains(class) {
                    return Ok(());
                }
                write!(
                    f,
                    "; if this is intended, write `egress.private: [{{host: \"{target}\", addresses: [\"{address}\"]}}]`"
                )
            }
            Self::HelloRefused { target, why } => {
                write!(f, "the ClientHello in the tunnel to `{target}` is refused: {why}")
            }
            Self::HelloTimeout => write!(f, "the client sent nothing in its tunnel"),
            Self::TunnelsExhausted { name, .. } => {
                write!(f, "`{name}` has too many concurrent tunnels")
            }
            Self::HostUnresolved { target } => write!(f, "`{target}` has no address"),
            Self::ParentUnreachable { parent } => {
                write!(f, "the parent proxy `{parent}` cannot be reached")
            }
            Self::ParentRefused { parent, status: 407 } => {
                write!(f, "the parent proxy `{parent}` refused our user name and password (407)")
            }
            Self::ParentRefused { parent, status } => {
                write!(f, "the parent proxy `{parent}` responded with {status}")
            }
            Self::ParentMalformed { parent } => {
                write!(f, "the parent proxy `{parent}` does not respond like a proxy")
            }
            Self::ParentTimeout { parent } => {
                write!(f, "the parent proxy `{parent}` did not respond in time")
            }
            Self::PasswordWrong => write!(f, "the password does not match the caller"),
            Self::Internal => write!(f, "something went wrong inside stagedoor"),
            Self::Stopping { during } => {
                write!(f, "stagedoor stopped during the check `{}`", during.name())
            }
        }
    }
}
