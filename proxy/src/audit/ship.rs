//! Ships records.

mod cursor;
mod source;

pub(crate) use cursor::oldest_needed;
