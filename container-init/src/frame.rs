//! The connection to the host: frames of a kind (one byte), a length (four bytes, the lowest first)
//! and a content of that length, on standard input and standard output.
//!
//! `runtime-docker/src/init/frame.rs` is the other end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// The kinds of frames that the host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromHost {
    /// Start a job. No content.
    Start,
    /// Bytes for the job's standard input.
    Input,
    /// The job is over. No content.
    End,
}

/// The kinds of frames that the host receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ToHost {
    /// A job can be started. No content.
    Ready = b'R',
    /// Bytes of the job's standard output.
    Output = b'o',
    /// Bytes of the job's standard error.
    Diagnostics = b'e',
    /// The job's program has ended: whether it was killed by a signal, whether memory ran out
    /// meanwhile (a byte each, 0 or 1), and the exit status or the signal (a byte).
    Ended = b'x',
    /// The program cannot be started. The content says why.
    CannotStart = b'n',
    /// Nothing of the job remained. No content.
    Clean = b'c',
    /// Something of the job remained. The content says what.
    Dirty = b'd',
}

/// The maximum length of the content of a frame, in bytes.
pub(crate) const MAX_CONTENT: usize = 64 << 10;
const HEAD: usize = 5;

/// The connection to the host.
pub(crate) struct Host {
    /// Not buffered, so that what can be read is what `poll` says.
    input: File,
    output: File,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Host {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            input: File::from(io::stdin().as_fd().try_clone_to_owned()?),
            output: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            received: vec![0; MAX_CONTENT],
            sent: Vec::with_capacity(HEAD + MAX_CONTENT),
        })
    }

    /// Returns what becomes readable when the host sends a frame.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Waits for a frame. Returns `None` if the host has closed the connection.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(FromHost, &[u8])>> {
        let mut head = [0; HEAD];
        loop {
            match self.input.read(&mut head[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.input.read_exact(&mut head[1..])?;
        let kind = match head[0] {
            b'S' => FromHost::Start,
            b'i' => FromHost::Input,
            b'E' => FromHost::End,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let content = self.received.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
        self.input.read_exact(content)?;
        Ok(Some((kind, content)))
    }

    /// Sends a frame. Of a content that is too long, the beginning.
    pub(crate) fn send(&mut self, kind: ToHost, content: &[u8]) -> io::Result<()> {
        let content = &content[..content.len().min(MAX_CONTENT)];
        self.sent.clear();
        self.sent.push(kind as u8);
        self.sent.extend_from_slice(&(content.len() as u32).to_le_bytes());
        self.sent.extend_from_slice(content);
        self.output.write_all(&self.sent)
    }
}
