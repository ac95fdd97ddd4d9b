//! Output of commands. If the reader closes the pipe, as `head` does, this does not panic, as `println!`
//! would.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};

static UNWRITTEN: AtomicBool = AtomicBool::new(false);

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

/// Whether some output could not be written. A closed pipe does not count.
pub(super) fn is_unwritten() -> bool {
    UNWRITTEN.load(Ordering::Relaxed)
}

/// A closed pipe is fine; any other error counts.
pub(super) fn written(result: io::Result<()>) {
    match result.and_then(|()| io::stdout().lock().flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            UNWRITTEN.store(true, Ordering::Relaxed);
            err(format_args!("cannot write the output: {error}"));
        }
        _ => {}
    }
}
