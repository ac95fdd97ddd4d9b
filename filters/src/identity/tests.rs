//! Tokens that must pass, and above all those that must not.

mod backstage;
mod claims;
mod keys;
mod places;
mod refusals;
mod signer;
mod stage;
mod wycheproof;
