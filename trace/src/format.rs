//! The format of a trace file.
//!
//! A file begins with the line `manifold-trace 2`. Blocks follow: the length of the payload and its
//! CRC-32, both as four bytes in little-endian order, then the payload, a [`Block`] in
//! [postcard](https://postcard.jamesmunns.com/wire-format)'s encoding. Blocks are only appended, so a
//! file whose last block is cut, because the process was killed, is read up to there.
//!
//! All times are in nanoseconds. Those of spans count from the moment when the dispatcher was built.

use std::io::{self, Read, Write};
use std::time::Duration;

use manifold_dispatcher::{Phase, SpanKind};
use serde::{Deserialize, Serialize};

/// The first line of a trace file.
pub(crate) const MAGIC: &[u8] = b"manifold-trace 2\n";
/// The beginning of a trace of any version.
pub(crate) const NAME: [u8; 15] = *b"manifold-trace ";

/// The maximum size of a block's payload in bytes. A larger length means that the file is damaged.
const MAX_BLOCK_BYTES: u32 = 64 << 20;

/// A part of a trace file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Block {
    /// The first block.
    Header(Header),
    /// Texts, which later blocks refer to by their index among all texts of the file.
    Texts(Vec<String>),
    /// Spans that have ended.
    Spans(Vec<SpanRecord>),
    /// The statistics of all spans so far, also of those that the file does not keep.
    Statistics(Statistics),
    /// A description of something in the trace.
    Label(Label),
    /// The recording has ended at this time, and nothing is missing.
    End(u64),
}

/// The first block of a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Header {
    /// When the dispatcher was built, since 1970.
    pub(crate) began: Duration,
    /// How many frames could compute at once.
    pub(crate) permits: u64,
}

/// A description of something in a trace, for its readers. The program that records the trace adds
/// labels with [`TraceFile::label`](crate::TraceFile::label).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// A name of an image.
    Image {
        /// The image reference in requests.
        image: String,
        /// What people call it.
        name: String,
    },
    /// A tree or blob that was an input of a root call.
    Input {
        /// The object's id in hexadecimal digits.
        id: String,
        /// The path of the directory, or of the repository.
        path: String,
        /// The revision. `None` for a directory.
        revision: Option<String>,
    },
    /// The command line.
    Command(Vec<String>),
}

/// Why a trace keeps a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kept {
    /// The trace keeps all spans up to this one.
    All,
    /// The span is on the critical path of one of the slowest root calls.
    Path,
    /// The span was one of the slowest so far.
    Slow,
    /// The span was drawn by lot and stands for this many spans.
    Sample(u32),
    /// The span contains one that is kept.
    Ancestor,
}

/// A span in a trace. See [`Span`](manifold_dispatcher::Span) for what the values mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SpanRecord {
    /// The number of the span.
    pub id: u64,
    /// The span of the run or root call that wanted this one.
    pub parent: Option<u64>,
    /// The number of the root call.
    pub root: u64,
    /// The nesting depth.
    pub depth: u32,
    /// The index of the kind in [`SpanKind::ALL`].
    pub(crate) kind: u8,
    /// Why the trace keeps the span.
    pub kept: Kept,
    /// The id of the request.
    pub request: [u8; 20],
    /// The id of the tree of arguments.
    pub args: [u8; 20],
    /// The index of the image reference among the texts.
    pub(crate) image: u32,
    /// The index of the runtime's name among the texts.
    pub(crate) runtime: u32,
    /// When the request was wanted.
    pub(crate) began: u64,
    /// How long the span took.
    pub(crate) duration: u64,
    /// The phases that took time: the index in [`Phase::ALL`] and the time.
    pub(crate) phases: Vec<(u8, u64)>,
    /// The number of bytes that the guest read.
    pub read_bytes: u64,
    /// The number of bytes that the guest stored.
    pub written_bytes: u64,
    /// The number of children that were runs, hits and joins.
    pub children: [u64; 3],
    /// The number of times that the run began again.
    pub rewinds: u64,
    /// The guest's peak memory in bytes, if its runtime knows it.
    pub memory_bytes: Option<u64>,
    /// The fuel that the guest burnt, if its runtime knows it.
    pub fuel: Option<u64>,
    /// The outcome's id, and whether it is a tree; or the index of the error's text.
    pub(crate) result: Result<([u8; 20], bool), u32>,
    /// Whether the outcome was memoized.
    pub memoized: bool,
    /// The span that this one waited for last.
    pub last: Option<u64>,
    /// The sibling that ended last before this span began.
    pub after: Option<u64>,
}

impl SpanRecord {
    /// Returns what the span is.
    pub fn kind(&self) -> SpanKind {
        SpanKind::ALL.get(usize::from(self.kind)).copied().unwrap_or(SpanKind::Unstarted)
    }

    /// Returns when the request was wanted, as the time since the dispatcher was built.
    pub const fn began(&self) -> Duration {
        Duration::from_nanos(self.began)
    }

    /// Returns when the span ended, as the time since the dispatcher was built.
    pub const fn ended(&self) -> Duration {
        Duration::from_nanos(self.began.saturating_add(self.duration))
    }

    /// Returns how long the span took.
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration)
    }

    /// Returns the time that the span spent in `phase`.
    pub fn phase(&self, phase: Phase) -> Duration {
        let of_phase = self.phases.iter().find(|(index, _)| usize::from(*index) == phase as usize);
        Duration::from_nanos(of_phase.map_or(0, |(_, nanos)| *nanos))
    }

    /// Returns the time that the span spent on anything but waiting: for other spans, in a queue, or
    /// for something outside of the dispatcher.
    pub fn own(&self) -> Duration {
        let waiting = WAITING.map(|phase| self.phase(phase));
        let waiting = waiting.into_iter().fold(Duration::ZERO, Duration::saturating_add);
        self.duration().saturating_sub(waiting)
    }

    /// Returns whether the span ended with an outcome.
    pub const fn is_success(&self) -> bool {
        self.result.is_ok()
    }
}

/// The statistics of all spans so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Statistics {
    /// The number of spans.
    pub(crate) spans: u64,
    /// The largest nesting depth.
    pub(crate) depth: u32,
    /// When the first span began and the last one ended.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) images: Vec<ImageStatistics>,
}

/// The statistics of an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImageStatistics {
    /// The indices of the image reference and of the runtime's name among the texts.
    pub(crate) image: u32,
    pub(crate) runtime: u32,
    /// The number of spans of each kind, in the order of [`SpanKind::ALL`].
    pub(crate) kinds: [u64; SpanKind::ALL.len()],
    /// The number of runs that failed.
    pub(crate) failures: u64,
    pub(crate) rewinds: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) fuel: u64,
    /// Of the runs: the time in each phase, in the order of [`Phase::ALL`], and the whole.
    pub(crate) phases: Vec<Distribution>,
    /// How long hits took.
    pub(crate) hits: Distribution,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) sum: u64,
    pub(crate) max: u64,
    /// Values, exact to a hundredth, with how often they occurred. Zero is not among them.
    pub(crate) values: Vec<(u64, u64)>,
}

/// The phases in which a span waits.
pub(crate) const WAITING: [Phase; 4] = [Phase::Nested, Phase::Wait, Phase::Queue, Phase::Outside];

/// Appends a block. Encodes it in `buffer`, whose content is replaced.
pub(crate) fn write(file: &mut impl Write, block: &Block, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    // The encoding is appended to the vector that is passed in, and that is returned.
    *buffer = postcard::to_extend(block, std::mem::take(buffer)).map_err(io::Error::other)?;
    let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&crc32fast::hash(buffer).to_le_bytes())?;
    file.write_all(buffer)
}

/// What follows in a file.
pub(crate) enum Next {
    Block(Block),
    /// The file ends here, as it should.
    End,
    /// The rest of the file is cut or damaged.
    Damaged,
}

/// Reads the next block.
pub(crate) fn read(file: &mut impl Read) -> io::Result<Next> {
    let mut head = Vec::with_capacity(8);
    file.by_ref().take(8).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(Next::End);
    }
    let Some((length, checksum)) = head.split_at_checked(4) else { return Ok(Next::Damaged) };
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes);
    let (Ok(length), Ok(checksum)) = (number(length), number(checksum)) else {
        return Ok(Next::Damaged);
    };
    if length > MAX_BLOCK_BYTES {
        return Ok(Next::Damaged);
    }
    let mut payload = Vec::new();
    file.by_ref().take(length.into()).read_to_end(&mut payload)?;
    if payload.len() != length as usize || crc32fast::hash(&payload) != checksum {
        return Ok(Next::Damaged);
    }
    Ok(postcard::from_bytes(&payload).map_or(Next::Damaged, Next::Block))
}
