//! Whether a known caller may make the request.

pub mod access;
pub mod body;
pub mod plugins;
pub mod switches;
pub mod workspaces;
