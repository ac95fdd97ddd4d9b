//! How a route reads its requests' bodies: the one interface for every kind of body.
//!
//! A body may authenticate the caller, and it may name the operation. Another kind is one more variant here,
//! and not a line more in the pipeline.

pub mod graphql;
mod spacelift;

use std::sync::Arc;

use self::{graphql::Graphql, spacelift::SpaceliftSignIn};
use super::workspaces::Workspace;
use crate::{
    Denial, Head, Label, Secret,
    denial::Lack,
    identity::{Authenticator, Caller, Presented, Refusal},
};

/// The rules of one route.
#[derive(Debug, Default)]
pub struct BodyRules {
    sign_in: Option<SignIn>,
    operations: Option<OperationRules>,
}

/// How clients sign in to an API by a request that is answered here.
#[derive(Debug)]
enum SignIn {
    Spacelift(SpaceliftSignIn),
}

/// The allowed operations, by the kind of API.
#[derive(Debug)]
pub enum OperationRules {
    /// A GraphQL API.
    Graphql(Graphql),
}

/// The operation that a body requests.
#[derive(Clone, Debug)]
pub enum Operation {
    /// An operation of a GraphQL API.
    Graphql {
        /// In short.
        label: Label,
        /// In full, as its rules read it.
        operation: graphql::Operation,
    },
    /// A sign-in by this operation. It is answered here.
    SignIn(Label),
}

/// The response to a request that is answered here.
#[derive(Debug)]
pub struct BodyAnswer {
    /// The requested operation.
    pub operation: Label,
    /// Its body, in JSON.
    pub body: Secret,
}

impl BodyRules {
    /// From what the operator wrote. `credential` is the one of the route's upstream.
    pub fn new(
        route: &config::Route,
        credential: Option<(&config::Name, &config::Credential)>,
    ) -> Self {
        let spacelift = credential
            .filter(|(_, written)| written.kind == config::CredentialKind::SpaceliftApiKey);
        Self {
            sign_in: spacelift.map(|(name, _)| SignIn::Spacelift(SpaceliftSignIn::new(name))),
            operations: route
                .options
                .graphql
                .as_deref()
                .map(|rules| OperationRules::Graphql(Graphql::new(rules))),
        }
    }

    /// Whether a body may authenticate the caller.
    pub fn signs_in(&self) -> bool {
        self.sign_in.is_some()
    }

    /// The allowed operations, if the route has rules for them.
    pub fn operations(&self) -> Option<&OperationRules> {
        self.operations.as_ref()
    }

    /// Authenticates the caller; with the response, if the body is a sign-in.
    ///
    /// # Errors
    /// Why the caller is not authenticated, and what to fetch before deciding again, which may be the body.
    pub(crate) fn authenticate(
        &self,
        head: &Head<'_>,
        presented: &Presented<'_>,
        authenticator: &Authenticator<'_>,
    ) -> Result<(Arc<Caller>, Option<BodyAnswer>), Refusal> {
        match &self.sign_in {
            Some(SignIn::Spacelift(rules)) => rules.authenticate(head, presented, authenticator),
            None => Ok((authenticator.request(presented)?, None)),
        }
    }
}

impl OperationRules {
    /// Reads the operation that a body requests.
    ///
    /// # Errors
    /// Why it is refused; `lack` is the body, if it has not been read.
    pub(crate) fn read(
        &self,
        head: &Head<'_>,
        lack: &mut Option<Lack>,
    ) -> Result<Operation, Denial> {
        match (self, head.body) {
            (Self::Graphql(_), Some(body)) => graphql::Operation::of(head, body).map(Into::into),
            (Self::Graphql(_), None) => {
                *lack = Some(Lack::Body);
                Err(Denial::GraphqlMalformed { why: "it has no body" })
            }
        }
    }

    /// Permits an operation that the rules allow this caller.
    ///
    /// # Errors
    /// The reason to say no.
    pub(crate) fn permit(
        &self,
        operation: &Operation,
        route: &Label,
        caller: &Caller,
        workspace: Option<&Workspace>,
    ) -> Result<(), Denial> {
        match (self, operation) {
            (Self::Graphql(rules), Operation::Graphql { operation, .. }) => {
                rules.permit(operation, route, caller, workspace)
            }
            // It is not an operation of such an API.
            (Self::Graphql(_), Operation::SignIn(_)) => Err(Denial::Internal),
        }
    }
}

impl Operation {
    /// In short, for records.
    pub fn label(&self) -> &Label {
        match self {
            Self::Graphql { label, .. } | Self::SignIn(label) => label,
        }
    }

    /// Its class, if that is not its route's.
    pub fn class(&self) -> Option<config::Class> {
        match self {
            Self::Graphql { operation, .. } => Some(operation.class()),
            Self::SignIn(_) => None,
        }
    }
}

impl From<graphql::Operation> for Operation {
    fn from(operation: graphql::Operation) -> Self {
        Self::Graphql { label: Label::lossy(&operation.to_string()), operation }
    }
}
