//! What a request says, read in one way only. Of the config's rules only a query's are applied here.

pub mod certificate;
pub mod client;
pub mod head;
pub mod header_name;
pub mod host;
pub mod normal_form;
pub mod query;
pub mod trace_context;
