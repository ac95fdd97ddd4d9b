//! Start, reload, drain, and background tasks.

pub mod control;
pub mod file_watch;
mod low_priority;
pub mod process;
pub mod reload;
pub mod reload_history;
pub mod restart_required;
pub mod shutdown;
