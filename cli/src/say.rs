//! Messages on standard error. A failure to write one is ignored: the stream may be full or closed,
//! and the exit status must not depend on that.

use std::io::{self, Write};

use crate::shown::shown;

/// Writes `text` and a line end. Control characters are escaped, because parts of the text may come
/// from guests.
pub(crate) fn say(text: &str) {
    let text = shown(text.trim_end_matches('\n')) + "\n";
    // One write, so that lines of several threads do not interleave.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a warning about a problem that does not end the command.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// The writer for `tracing`, which writes through [`say`].
pub(crate) struct StderrWriter;

impl Write for StderrWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
