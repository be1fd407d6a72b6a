//! The connection between a guest's process and this one: standard streams or a socket, read line
//! by line.

use std::io;
use std::pin::Pin;

use bollard::container::{AttachContainerResults, LogOutput};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

/// Bytes that a process wrote.
pub(crate) enum Piece {
    Output(Bytes),
    Diagnostics(Bytes),
}

/// What a process writes.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = io::Result<Piece>> + Send>>;
/// Where its input is written.
pub(crate) type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// The standard streams of a container.
pub(crate) struct Streams {
    pub(crate) pieces: Pieces,
    pub(crate) input: Writer,
}

impl Streams {
    pub(crate) fn attached(attached: AttachContainerResults) -> Self {
        let pieces = attached.output.map(|piece| match piece {
            Ok(LogOutput::StdErr { message }) => Ok(Piece::Diagnostics(message)),
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(Piece::Output(message)),
            Err(error) => Err(io::Error::other(error)),
        });
        Self { pieces: Box::pin(pieces), input: attached.input }
    }
}

/// A connection to a guest's process, in both directions.
pub(crate) struct Wire {
    pieces: Pieces,
    input: Writer,
    /// Output that was received and not returned yet.
    output: BytesMut,
    /// Number of bytes at the beginning of `output` that are known to contain no line end.
    scanned: usize,
    /// Whether the process has closed its end.
    has_ended: bool,
}

/// The result of [`Wire::line`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A line, without its line end.
    Line(Bytes),
    /// More bytes than the bound without a line end.
    TooLong,
    /// The process closed its end after `rest` bytes without a line end.
    End { rest: usize },
}

impl Wire {
    /// Creates a wire from a connection to a socket.
    pub(crate) fn socket(connection: UnixStream) -> Self {
        let (output, input) = connection.into_split();
        Self::new(
            Box::pin(ReaderStream::new(output).map(|piece| piece.map(Piece::Output))),
            Box::pin(input),
        )
    }

    /// Creates a wire from streams of any kind.
    pub(crate) fn new(pieces: Pieces, input: Writer) -> Self {
        Self { pieces, input, output: BytesMut::new(), scanned: 0, has_ended: false }
    }

    /// Receives the next line. Returns [`Received::TooLong`] when more than `bound` bytes without a
    /// line end have arrived. Standard error goes to `diagnostics`.
    pub(crate) async fn line(&mut self, bound: u64, diagnostics: &mut Diagnostics<'_>) -> Received {
        loop {
            if let Some(end) = self.output[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let line = self.output.split_to(self.scanned + end).freeze();
                let _ = self.output.split_to(1);
                self.scanned = 0;
                return Received::Line(line);
            }
            self.scanned = self.output.len();
            if self.scanned as u64 > bound {
                return Received::TooLong;
            }
            if self.has_ended {
                return Received::End { rest: self.output.len() };
            }
            self.receive(diagnostics).await;
        }
    }

    /// Drops the output that was received and not returned.
    pub(crate) fn discard(&mut self) {
        self.output.clear();
        self.scanned = 0;
    }

    /// Sends `text`, and receives output meanwhile, because a process may block on writing before
    /// it reads. Stops receiving when there are more than `bound` bytes of output.
    pub(crate) async fn send(
        &mut self,
        text: &[u8],
        bound: u64,
        diagnostics: &mut Diagnostics<'_>,
    ) -> io::Result<()> {
        let Self { pieces, input, output, has_ended, .. } = self;
        let mut sending = std::pin::pin!(async {
            input.write_all(text).await?;
            input.flush().await
        });
        loop {
            if *has_ended || output.len() as u64 > bound {
                return sending.await;
            }
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                piece = pieces.next() => keep(piece, output, has_ended, diagnostics),
            }
        }
    }

    /// Returns whether the process has closed its end, without waiting. Returns false if more than
    /// a few pieces of output are still to be received before that.
    pub(crate) fn is_closed(&mut self, diagnostics: &mut Diagnostics<'_>) -> bool {
        const MAX_PIECES: usize = 16;
        for _ in 0..MAX_PIECES {
            if self.has_ended {
                break;
            }
            match futures_util::FutureExt::now_or_never(self.pieces.next()) {
                Some(piece) => keep(piece, &mut self.output, &mut self.has_ended, diagnostics),
                None => break,
            }
        }
        self.has_ended
    }

    async fn receive(&mut self, diagnostics: &mut Diagnostics<'_>) {
        let piece = self.pieces.next().await;
        keep(piece, &mut self.output, &mut self.has_ended, diagnostics);
    }
}

fn keep(
    piece: Option<io::Result<Piece>>,
    output: &mut BytesMut,
    has_ended: &mut bool,
    diagnostics: &mut Diagnostics<'_>,
) {
    match piece {
        Some(Ok(Piece::Output(text))) => output.extend_from_slice(&text),
        Some(Ok(Piece::Diagnostics(text))) => diagnostics.take(&text),
        // A broken connection is treated like a closed one. The caller asks the engine for the
        // cause.
        Some(Err(_)) | None => *has_ended = true,
    }
}

/// Splits a process's standard error into lines and passes them to a log.
#[derive(Default)]
pub(crate) struct Diagnostics<'a> {
    line: Vec<u8>,
    log: Option<&'a (dyn Fn(&str) + Send + Sync)>,
}

/// Maximum length of a line of standard error, in bytes. Longer lines are split.
const MAX_LINE: usize = 8192;

impl<'a> Diagnostics<'a> {
    pub(crate) fn new(log: &'a (dyn Fn(&str) + Send + Sync)) -> Self {
        Self { line: Vec::new(), log: Some(log) }
    }

    fn take(&mut self, text: &[u8]) {
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= MAX_LINE {
                self.flush();
            }
        }
    }

    /// Logs the unfinished last line.
    pub(crate) fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if let (Some(log), false) = (self.log, line.is_empty()) {
            log(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn wire(pieces: Vec<Piece>) -> Wire {
        Wire::new(
            Box::pin(futures_util::stream::iter(pieces.into_iter().map(Ok))),
            Box::pin(tokio::io::sink()),
        )
    }

    fn output(text: &'static str) -> Piece {
        Piece::Output(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_do_not_depend_on_piece_boundaries() {
        let mut wire =
            wire(vec![output("{\"a"), output("\":1}\n{}"), output("\n\nhal"), output("f")]);
        let mut diagnostics = Diagnostics::default();
        for line in ["{\"a\":1}", "{}", ""] {
            assert_eq!(wire.line(100, &mut diagnostics).await, Received::Line(line.into()));
        }
        assert_eq!(wire.line(100, &mut diagnostics).await, Received::End { rest: 4 });
        assert!(wire.is_closed(&mut diagnostics));
    }

    #[tokio::test]
    async fn an_unfinished_line_is_bounded_and_diagnostics_are_split_into_lines() {
        let logged = Mutex::<Vec<String>>::default();
        let log = |line: &str| logged.lock().unwrap().push(line.to_owned());
        let error = Piece::Diagnostics(Bytes::from_static(b"one\ntw"));
        let more = Piece::Diagnostics(Bytes::from_static(b"o\nthree"));
        let mut wire = wire(vec![error, output("0123456789"), more, output("0123456789\n")]);
        let mut diagnostics = Diagnostics::new(&log);
        assert_eq!(wire.line(9, &mut diagnostics).await, Received::TooLong);
        assert!(matches!(
            wire.line(100, &mut diagnostics).await,
            Received::Line(line) if line.len() == 20
        ));
        diagnostics.flush();
        assert_eq!(*logged.lock().unwrap(), ["one", "two", "three"]);
    }
}
