//! What a decision is missing.

use crate::{Label, Secret};

/// What could change a decision, if it were fetched. The proxy fetches it and decides again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The keys of an issuer; for Backstage plugin tokens, those of one plugin.
    Keys {
        /// The issuer's name in the config.
        issuer: Label,
        /// The plugin whose keys are wanted, for `kind: backstage`.
        plugin: Option<Label>,
        /// The unknown key id.
        kid: Option<Label>,
    },
    /// The request's body, which the route's rules are about.
    Body,
    /// Tokens of a limit that replicas share.
    Tokens {
        /// The batch of requests to the store after which there may be some.
        batch: u64,
    },
    /// The groups of a user that its token does not name.
    Groups {
        /// The issuer's name in the config.
        issuer: Label,
        /// The user.
        subject: Label,
        /// Their token, to fetch them with.
        token: Secret,
    },
}
