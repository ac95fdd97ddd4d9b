//! Tokens that must pass, and above all those that must not.

mod backstage;
mod callers;
mod claims;
mod elsewhere;
mod keys;
mod opaque;
mod orbit;
mod places;
mod refusals;
mod signer;
mod stage;
mod types;
mod wycheproof;
