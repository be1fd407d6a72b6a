//! The connection to a container's init, over which its jobs come one after the other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::frame::{END, Frame, Frames, Input, START};
use crate::wire::{Piece, Streams, Wire, Writer};

/// How long an init may take to say whether its container is clean. It gives up by itself after
/// 20 ms, so one that does not answer is lost.
const CLEAN_PATIENCE: Duration = Duration::from_millis(100);

/// The end of a job's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited {
        status: u8,
    },
    Killed {
        signal: u8,
    },
    /// The kernel killed a process of the container because its memory was used up.
    OutOfMemory,
    CannotStart {
        problem: String,
    },
}

/// What became of a container after a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recycled {
    /// Nothing of the job is left.
    Clean,
    /// The container must be thrown away, for this reason.
    Dirty(String),
    /// The init does not answer, and will not end by itself either.
    Lost,
}

/// The connection to an init.
pub(crate) struct Link {
    frames: Arc<AsyncMutex<Frames>>,
    writer: Arc<AsyncMutex<Input<Writer>>>,
    /// How the program of the current job has ended, if it has.
    ended: Arc<Mutex<Option<Ended>>>,
}

impl Link {
    /// Waits until the init is ready. Returns the last words of an init that is not.
    pub(crate) async fn open(streams: Streams) -> Result<Self, String> {
        let mut frames = Frames::new(streams.pieces);
        match frames.next().await {
            Some(Frame::Ready) => Ok(Self {
                frames: Arc::new(AsyncMutex::new(frames)),
                writer: Arc::new(AsyncMutex::new(Input::new(streams.input))),
                ended: Arc::default(),
            }),
            _ => Err(frames.last_words),
        }
    }

    /// Returns whether the container has ended, without waiting. For a container without a job.
    pub(crate) fn is_closed(&self) -> bool {
        let Ok(mut frames) = self.frames.try_lock() else { return false };
        futures_util::FutureExt::now_or_never(frames.next()).is_some()
    }

    /// Starts a job. Returns the streams of its program.
    pub(crate) async fn begin(&self) -> io::Result<Wire> {
        *self.ended.lock() = None;
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        writer.write_raw(START).await?;
        let frames = Arc::clone(&self.frames).lock_owned().await;
        let pieces = pieces(frames, Arc::clone(&self.ended));
        Ok(Wire::new(Box::pin(pieces), Box::pin(Pin::new(writer))))
    }

    /// Returns how the program of the current job has ended; `None` if it has not, or if the
    /// connection was lost.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.lock().clone()
    }

    /// Ends the current job, whose wire must have been dropped, and waits until its container is
    /// clean.
    pub(crate) async fn recycle(&self) -> Recycled {
        let cleaning = async {
            let mut writer = self.writer.lock().await;
            if writer.is_in_a_frame() {
                return Recycled::Dirty("the job did not take its input".to_owned());
            }
            if let Err(error) = writer.write_raw(END).await {
                return Recycled::Dirty(error.to_string());
            }
            let mut frames = self.frames.lock().await;
            loop {
                match frames.next().await {
                    Some(Frame::Clean) => return Recycled::Clean,
                    Some(Frame::Dirty(problem)) => return Recycled::Dirty(problem),
                    Some(_) => {}
                    None => return Recycled::Dirty("the container has ended".to_owned()),
                }
            }
        };
        tokio::time::timeout(CLEAN_PATIENCE, cleaning).await.unwrap_or(Recycled::Lost)
    }
}

/// Returns what a job's program writes, until it ends.
fn pieces(
    frames: OwnedMutexGuard<Frames>,
    ended: Arc<Mutex<Option<Ended>>>,
) -> impl Stream<Item = io::Result<Piece>> + Send {
    futures_util::stream::unfold((frames, ended), |(mut frames, ended)| async move {
        let piece = match frames.next().await? {
            Frame::Output(bytes) => Piece::Output(bytes),
            Frame::Diagnostics(bytes) => Piece::Diagnostics(bytes),
            frame => {
                *ended.lock() = end(frame);
                return None;
            }
        };
        Some((Ok(piece), (frames, ended)))
    })
}

fn end(frame: Frame) -> Option<Ended> {
    match frame {
        Frame::Ended([_, 1, _]) => Some(Ended::OutOfMemory),
        Frame::Ended([0, _, status]) => Some(Ended::Exited { status }),
        Frame::Ended([_, _, signal]) => Some(Ended::Killed { signal }),
        Frame::CannotStart(problem) => Some(Ended::CannotStart { problem }),
        // Nothing else comes during a job.
        _ => None,
    }
}

impl Input<Writer> {
    /// Writes a frame that is no input.
    async fn write_raw(&mut self, frame: &[u8]) -> io::Result<()> {
        self.writer().write_all(frame).await?;
        self.writer().flush().await
    }
}
