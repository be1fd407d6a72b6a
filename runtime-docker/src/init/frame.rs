//! The frames that this process and a container's init exchange: a kind (one byte), the length of
//! the content (four bytes, the lowest first), and the content.
//!
//! `container-init/src/frame.rs` is the other end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::AsyncWrite;

use crate::wire::{Piece, Pieces};

/// The maximum length of the content of a frame, in bytes.
const MAX_CONTENT: usize = 64 << 10;
const HEAD: usize = 5;

/// The frame that starts a job.
pub(super) const START: &[u8] = b"S\0\0\0\0";
/// The frame that says that the job is over.
pub(super) const END: &[u8] = b"E\0\0\0\0";

/// A frame from an init.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Ready,
    Output(Bytes),
    Diagnostics(Bytes),
    /// Whether the program was killed, whether memory ran out meanwhile, and the status or signal.
    Ended([u8; 3]),
    CannotStart(String),
    Clean,
    Dirty(String),
}

/// The frames that arrive from an init.
pub(super) struct Frames {
    pieces: Pieces,
    received: BytesMut,
    /// The last line that the init wrote to its own standard error.
    pub(super) last_words: String,
}

impl Frames {
    pub(super) fn new(pieces: Pieces) -> Self {
        Self { pieces, received: BytesMut::new(), last_words: String::new() }
    }

    /// Receives a frame. Returns `None` if the connection has ended, or if what arrives is no frame.
    /// No frame is lost if this is cancelled.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(length) = self.content_length()? {
                let kind = self.received[0];
                self.received.advance(HEAD);
                return frame(kind, self.received.split_to(length).freeze());
            }
            match self.pieces.next().await? {
                Ok(Piece::Output(bytes)) => self.received.extend_from_slice(&bytes),
                Ok(Piece::Diagnostics(bytes)) => {
                    let text = String::from_utf8_lossy(&bytes);
                    tracing::info!("{}", text.trim_end());
                    self.last_words = text.trim_end().chars().take(400).collect();
                }
                Err(_) => return None,
            }
        }
    }

    /// Returns the length of the first content if all of it is there. `None` if it is too long.
    fn content_length(&self) -> Option<Option<usize>> {
        let Some(head) = self.received.get(1..HEAD) else { return Some(None) };
        let length = head.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        if length > MAX_CONTENT {
            return None;
        }
        Some((self.received.len() >= HEAD + length).then_some(length))
    }
}

fn frame(kind: u8, content: Bytes) -> Option<Frame> {
    let text = || String::from_utf8_lossy(&content).into_owned();
    Some(match kind {
        b'R' => Frame::Ready,
        b'o' => Frame::Output(content),
        b'e' => Frame::Diagnostics(content),
        b'x' => Frame::Ended(content.as_ref().try_into().ok()?),
        b'n' => Frame::CannotStart(text()),
        b'c' => Frame::Clean,
        b'd' => Frame::Dirty(text()),
        _ => return None,
    })
}

/// Writes bytes as frames with a job's input.
pub(super) struct Input<W> {
    writer: W,
    /// What is left of a frame.
    unwritten: BytesMut,
}

impl<W> Input<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, unwritten: BytesMut::new() }
    }

    /// Returns the writer, for frames that are no input. None may be written in part.
    pub(super) fn writer(&mut self) -> &mut W {
        &mut self.writer
    }

    /// Returns whether a frame is written in part, so that no other frame can follow.
    pub(super) fn is_in_a_frame(&self) -> bool {
        !self.unwritten.is_empty()
    }
}

impl<W: AsyncWrite + Unpin> Input<W> {
    fn poll_unwritten(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let written =
                std::task::ready!(Pin::new(&mut self.writer).poll_write(context, &self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Input<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_unwritten(context))?;
        let content = &bytes[..bytes.len().min(MAX_CONTENT)];
        self.unwritten.put_u8(b'i');
        self.unwritten.put_u32_le(content.len() as u32);
        self.unwritten.extend_from_slice(content);
        // What cannot be written now is written by the next call.
        if let Poll::Ready(Err(error)) = self.poll_unwritten(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(content.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_unwritten(context))?;
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn frames(pieces: Vec<&'static [u8]>) -> Frames {
        let pieces = pieces.into_iter().map(|piece| Ok(Piece::Output(Bytes::from_static(piece))));
        Frames::new(Box::pin(futures_util::stream::iter(pieces.collect::<Vec<_>>())))
    }

    #[tokio::test]
    async fn frames_do_not_depend_on_piece_boundaries() {
        let whole: &[u8] = b"R\0\0\0\0o\x03\0\0\0abcx\x03\0\0\0\x01\0\x09c\0\0\0\0";
        for at in 0..whole.len() {
            let mut frames = frames(vec![&whole[..at], &whole[at..]]);
            assert_eq!(frames.next().await, Some(Frame::Ready));
            assert_eq!(frames.next().await, Some(Frame::Output(Bytes::from_static(b"abc"))));
            assert_eq!(frames.next().await, Some(Frame::Ended([1, 0, 9])));
            assert_eq!(frames.next().await, Some(Frame::Clean));
            assert_eq!(frames.next().await, None);
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection() {
        for bytes in [&b"?\0\0\0\0"[..], b"o\0\0\0\x01", b"x\x01\0\0\0\0", b"o\x03\0\0\0ab"] {
            assert_eq!(frames(vec![bytes]).next().await, None, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn input_of_any_length_becomes_frames() {
        for length in [1, MAX_CONTENT, MAX_CONTENT + 1] {
            let (near, mut far) = tokio::io::duplex(1000);
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut far, &mut all).await.unwrap();
                all
            });
            let mut input = Input::new(near);
            input.write_all(&vec![7; length]).await.unwrap();
            input.flush().await.unwrap();
            assert!(!input.is_in_a_frame());
            drop(input);
            let mut all = &reading.await.unwrap()[..];
            let mut content = 0;
            while !all.is_empty() {
                assert_eq!(all.get_u8(), b'i');
                let part = all.get_u32_le() as usize;
                assert!(part <= MAX_CONTENT && all[..part].iter().all(|byte| *byte == 7));
                all.advance(part);
                content += part;
            }
            assert_eq!(content, length);
        }
    }
}
