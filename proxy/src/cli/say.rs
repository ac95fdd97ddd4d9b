//! What commands print. Whoever reads may stop reading, as `head` does: that ends nothing with a
//! panic, as `println!` would.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
};

/// Prints a line to standard output.
pub(super) fn out(line: fmt::Arguments<'_>) {
    written(writeln!(io::stdout().lock(), "{line}"));
}

/// Prints text that has its line ends.
pub(super) fn text(text: &str) {
    written(io::stdout().lock().write_all(text.as_bytes()));
}

/// Prints a line to standard error.
pub(super) fn err(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A reader that left has seen enough; anything else should be known.
fn written(result: io::Result<()>) {
    match result.and_then(|()| io::stdout().lock().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            err(format_args!("cannot write the answer: {error}"));
        }
        _ => {}
    }
}
