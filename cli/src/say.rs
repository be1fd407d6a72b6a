//! What a command says on standard error. That may be full, or nobody may read it: what is said is lost then, and that is all.

use std::io::{self, Write};

use crate::shown::shown;

/// Writes lines that begin as they are, and whose text may be others'.
pub(crate) fn say(text: &str) {
    let text = shown(text.trim_end_matches('\n')) + "\n";
    // In one piece, so that lines of several threads do not mix.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says what is not as it should be, though the command goes on.
pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Where `tracing` writes: standard error, as above.
pub(crate) struct Saying;

impl Write for Saying {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
