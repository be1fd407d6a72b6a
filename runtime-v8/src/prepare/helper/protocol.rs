//! The messages between the program and a helper.
//!
//! A helper reads requests from its standard input and writes responses to its standard output, one
//! at a time. All numbers are little-endian:
//!
//! | message | fields |
//! |---|---|
//! | request | time limit in seconds (8 bytes), then two texts: the file's path, its content |
//! | response | one byte, the status ([`Answer`]), then two texts |
//!
//! A text is its length in bytes (8 bytes), followed by its bytes.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    /// The texts are the code and its source map.
    Done = 0,
    /// The first text describes the problem with the file.
    Refused = 1,
}

/// Waits until data can be read or the other side has closed the pipe. Returns false if neither
/// happens within `time`.
pub(super) fn is_readable(file: &impl AsFd, time: Duration) -> io::Result<bool> {
    let mut waiting = [PollFd::new(file, PollFlags::IN)];
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(&mut waiting, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends a message: the bytes of its numbers, then its texts.
pub(super) fn send(to: &mut impl Write, head: &[u8], texts: [&str; 2]) -> io::Result<()> {
    let mut message = Vec::with_capacity(head.len() + 16 + texts[0].len() + texts[1].len());
    message.extend_from_slice(head);
    for text in texts {
        message.extend_from_slice(&(text.len() as u64).to_le_bytes());
        message.extend_from_slice(text.as_bytes());
    }
    to.write_all(&message)?;
    to.flush()
}

/// Receives one text.
pub(super) fn receive_text(from: &mut impl Read) -> io::Result<String> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Receives a request: the time limit in seconds, the file's path, and its content.
pub(super) fn receive_request(from: &mut impl Read) -> io::Result<(u64, String, String)> {
    let mut seconds = [0; 8];
    from.read_exact(&mut seconds)?;
    Ok((u64::from_le_bytes(seconds), receive_text(from)?, receive_text(from)?))
}
