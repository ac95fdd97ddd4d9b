//! The pipeline: every check, in order, and what they are made from.
//!
//! In reading order: [`reverse`] for requests, [`forward`] for outbound calls.

pub mod admitted;
pub mod dispatch;
pub mod exchange;
pub mod forward;
pub mod judged;
pub mod policy;
pub mod reverse;
pub mod routes;
pub mod state;
