//! The facts of a record, as inputs of a decision.

use std::sync::Arc;

use super::{
    Replay, Why,
    record::{self, Record, Text},
};
use crate::{
    Label,
    checks::body::graphql::{self, Argument, Field, Kind},
    identity::{Caller, ClientCertificate, LeftOut, Proof},
};

impl Replay {
    /// The caller, by the record and the config. `None` if the certificate or the listener decides it again.
    pub(super) fn supposed(
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
}

pub(super) fn proof_of(record: &Record<'_>) -> Result<Option<Proof>, Why> {
    record.proof.as_deref().map(|name| Proof::of(name).ok_or(Why::Unknown)).transpose()
}

pub(super) fn operation(
    recorded: &record::RecordedOperation<'_>,
) -> Result<graphql::Operation, Why> {
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
    let kind = kind_of(&recorded.kind).ok_or(Why::Unknown)?;
    Ok(graphql::Operation { kind, fields: recorded.fields.iter().map(field).collect() })
}

pub(super) fn kind_of(name: &str) -> Option<Kind> {
    [Kind::Query, Kind::Mutation].into_iter().find(|kind| kind.name() == name)
}

pub(super) fn certificate(shown: &record::RecordedCertificate<'_>) -> ClientCertificate {
    ClientCertificate {
        common_name: shown.common_name.as_deref().map(label),
        dns: labels(&shown.dns),
        uris: labels(&shown.uris),
        emails: labels(&shown.emails),
        fingerprint: None,
    }
}

pub(super) fn label(text: &str) -> Label {
    Label::new(text).unwrap_or_else(|| Label::lossy(text))
}

pub(super) fn labels(texts: &[Text<'_>]) -> Vec<Label> {
    texts.iter().map(|text| label(text)).collect()
}
