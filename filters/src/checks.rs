//! Whether a known caller may do what it asks for.

pub mod access;
pub mod body;
pub mod plugins;
pub mod switches;
pub mod workspaces;
