//! What must hold whatever bytes come: each module has one `check`, which panics where it does not.
//!
//! `fuzz/run` looks for such bytes with libFuzzer; `tests/seeds.rs` tries the seeds and what was found
//! before, in every `cargo test`. Where a library that is kept well reads the same thing, it is asked too.

pub mod audit;
pub mod connect;
pub mod front;
pub mod hello;
pub mod path;
pub mod redact;
pub mod token;
pub mod yaml;

/// What must hold of some bytes.
pub type Check = fn(&[u8]);

/// Each of them, by the name of its target.
pub const TARGETS: [(&str, Check); 9] = [
    ("audit", audit::check),
    ("chunks", front::bodies::check),
    ("connect", connect::check),
    ("head", front::heads::check),
    ("hello", hello::check),
    ("path", path::check),
    ("redact", redact::check),
    ("token", token::check),
    ("yaml", yaml::check),
];
