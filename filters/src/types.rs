//! Small values that all other modules use.

pub mod hex;
pub(crate) mod json;
pub mod label;
pub mod now;
pub mod secret;
pub(crate) mod sha256;
