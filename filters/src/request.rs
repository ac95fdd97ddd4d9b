//! What a request says, read in one way only. No rule of a config is looked at here but a query's.

pub mod certificate;
pub mod client;
pub mod head;
pub mod header_name;
pub mod host;
pub mod normal_form;
pub mod query;
pub mod trace_context;
