//! One denial of each kind, for questions about a code alone.

use std::{num::NonZeroU32, time::Duration};

use super::{Cause, Denial, Of, Over, QuotaStatus, TargetFault, TokenFault};
use crate::{Label, denial::step::Step};

/// One of each variant, and of each token fault, with empty details.
pub(super) fn all() -> Vec<Denial> {
    use Denial as D;
    let any = || Label::lossy("?");
    let (route, host, kind, name) = (any, any, any, any);
    let (issuer, subject, workspace, plugin) = (any, any, any, any);
    let (upstream, credential, parent, target, address) = (any, any, any, any, any);
    let (why, retry_after, rate_min) = ("", Duration::ZERO, 0);
    let rate = config::Rate { count: NonZeroU32::MIN, per: Duration::from_secs(1) };
    let limit = config::Limit { rate, burst: None };
    let over = Over { status: QuotaStatus::new("", Of::Rest, limit, 0), name: any() };
    let mut all = vec![
        D::PathAmbiguous { why },
        D::HostInvalid,
        D::HostUnknown { host: host() },
        D::RouteUnknown,
        D::RouteClosed { route: route() },
        D::ClassAdmin { route: route() },
        D::UpgradeRefused { route: route() },
        D::QueryRefused { parameter: any() },
        D::CallerMissing,
        D::AuthorizationAmbiguous,
        D::CallerUnknown { issuer: issuer(), subject: subject() },
        D::KeysUnavailable { issuer: issuer() },
        D::GroupsUnavailable { issuer: issuer() },
        D::GroupsLeftOut { issuer: issuer() },
        D::WorkspaceMissing,
        D::WorkspaceAmbiguous,
        D::WorkspaceUnknown { workspace: workspace() },
        D::WorkspaceNotGranted { workspace: workspace() },
        D::PluginDisabled { plugin: plugin(), workspace: workspace() },
        D::SwitchedOff { scope: "".into(), reason: "".into(), retry_after },
        D::AccessDenied { route: route() },
        D::RateLimited(Box::new(over)),
        D::LimitsUnavailable,
        D::IdempotencyInFlight,
        D::IdempotencyKeyInvalid,
        D::BreakerOpen { upstream: upstream(), retry_after, cause: Cause::NoResponse },
        D::AuditUnavailable,
        D::PaceExceeded { upstream: upstream(), limit, retry_after },
        D::GraphqlMalformed { why },
        D::GraphqlRefused { operation: "", field: any() },
        D::ResourceRefused { kind: kind(), name: name() },
        D::CredentialUnavailable { credential: credential() },
        D::CallerTokenMissing { credential: credential() },
        D::TokenExchangeRefused { credential: credential(), cause: any() },
        D::BodyTooLarge { bytes_max: 0 },
        D::BodyTimeout,
        D::BodySlow { rate_min },
        D::ClientSlow { rate_min },
        D::BodyMalformed,
        D::UpstreamUnreachable { upstream: upstream() },
        D::UpstreamTls { upstream: upstream() },
        D::UpstreamReset { upstream: upstream() },
        D::UpstreamMalformed { upstream: upstream(), why },
        D::RedirectRefused { upstream: upstream(), class: "" },
        D::RedactionImpossible { upstream: upstream() },
        D::ConnectTimeout { upstream: upstream() },
        D::UpstreamTimeout { upstream: upstream() },
        D::WholeTimeout { upstream: upstream() },
        D::UpstreamSlow { upstream: upstream(), rate_min },
        D::TargetInvalid(TargetFault::HostEmpty),
        D::HostRefused { target: target(), plugin: None, for_others: false },
        D::AddressRefused { target: target(), address: address(), class: "" },
        D::HelloRefused { target: target(), why },
        D::HelloTimeout,
        D::TunnelsExhausted { name: name(), max: 0 },
        D::HostUnresolved { target: target() },
        D::ParentUnreachable { parent: parent() },
        D::ParentRefused { parent: parent(), status: 0 },
        D::ParentMalformed { parent: parent() },
        D::ParentTimeout { parent: parent() },
        D::PasswordWrong,
        D::Internal,
        D::Stopping { during: Step::Caller },
    ];
    all.extend(
        [
            TokenFault::Malformed { why },
            TokenFault::TooLarge,
            TokenFault::AlgorithmRefused,
            TokenFault::HeaderRefused { header: "" },
            TokenFault::TypeWrong { seen: any() },
            TokenFault::IssuerUnknown { seen: None },
            TokenFault::KeyUnknown { issuer: issuer() },
            TokenFault::SignatureWrong,
            TokenFault::AudienceWrong { issuer: issuer(), seen: None },
            TokenFault::PartyWrong { issuer: issuer(), seen: None },
            TokenFault::Expired,
            TokenFault::NotYetValid,
            TokenFault::ClaimMissing { claim: "" },
            TokenFault::ClaimWrong { issuer: issuer(), claim: any() },
            TokenFault::Bound,
        ]
        .map(D::Token),
    );
    all
}
