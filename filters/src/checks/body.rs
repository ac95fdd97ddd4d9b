//! What a route makes of its requests' bodies: the one seam for every kind of them.
//!
//! A body may say who is calling, and it may say what is asked for. A kind that is added is one more
//! variant here, and no line in the pipeline.

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

/// How clients of an API sign in to it by a request, where that is answered here.
#[derive(Debug)]
enum SignIn {
    Spacelift(SpaceliftSignIn),
}

/// The operations that are let through, by the kind of API.
#[derive(Debug)]
pub enum OperationRules {
    /// A GraphQL API.
    Graphql(Graphql),
}

/// What a body asks for.
#[derive(Clone, Debug)]
pub enum Operation {
    /// This of a GraphQL API.
    Graphql {
        /// In short.
        label: Label,
        /// In full, as its rules read it.
        operation: graphql::Operation,
    },
    /// To sign in, by this operation. It is answered here.
    SignIn(Label),
}

/// The answer to a request that gets no further than here.
#[derive(Debug)]
pub struct BodyAnswer {
    /// What was asked for.
    pub operation: Label,
    /// Its body, in JSON.
    pub body: Secret,
}

impl BodyRules {
    /// From what the operator wrote. `credential` is what the route's upstream is shown.
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

    /// Whether a body may say who is calling.
    pub fn signs_in(&self) -> bool {
        self.sign_in.is_some()
    }

    /// The operations that are let through, if the bodies of the route have some.
    pub fn operations(&self) -> Option<&OperationRules> {
        self.operations.as_ref()
    }

    /// Says who is calling; and the answer, if the body asks for nothing but that.
    ///
    /// # Errors
    /// Why nobody in particular is calling, and what would help: it may be the body.
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
    /// Reads what a body asks for.
    ///
    /// # Errors
    /// The reason to say no; `lack` is the body, if it was not read yet.
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

    /// Lets an operation through that the rules allow to this caller.
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
            // It is no operation of such an API.
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

    /// What it does, if that is not what its route says.
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
