//! What a decision lacks.

use crate::{Label, Secret};

/// What would let a decision come out differently, if it were fetched. The machinery fetches it and
/// asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The keys of an issuer; for Backstage plugin tokens, those of one plugin.
    Keys {
        /// The issuer's name in the config.
        issuer: Label,
        /// The plugin whose keys are wanted, for `kind: backstage`.
        plugin: Option<Label>,
        /// The key id that is not known.
        kid: Option<Label>,
    },
    /// The request's body, which the route's rules are about.
    Body,
    /// Tokens of a limit that replicas share.
    Tokens {
        /// The batch of questions to the store after which there may be some.
        batch: u64,
    },
    /// The groups of a user that its token does not name.
    Groups {
        /// The issuer's name in the config.
        issuer: Label,
        /// The user.
        subject: Label,
        /// A token of theirs, to ask with.
        token: Secret,
    },
}
