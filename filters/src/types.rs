//! Small values that everything else is written in.

pub mod hex;
pub(crate) mod json;
pub mod label;
pub mod now;
pub mod secret;
pub(crate) mod sha256;
