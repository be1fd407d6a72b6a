//! [`TraceFile`]: the observer that records a trace.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use manifold_dispatcher::{CriticalPath, Event, Observed, Observer, Span, SpanKind};
use parking_lot::Mutex;

use crate::format::{self, Block, Header, Kept, Label, SpanRecord};
use crate::selection::Selection;
use crate::statistics::Gatherer;

/// How many spans are kept whatever they are.
const BOUND: u64 = 200_000;
/// How many spans a thread gathers before it passes them on.
const BATCH: usize = 256;
/// How many batches may wait to be written.
const QUEUE: usize = 64;
/// How many spans are written together.
const RECORDS: usize = 1024;
/// How often what has been gathered is written at least.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often the statistics are written once spans are left out.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);
/// The number of buffers, between which threads are divided.
const BUFFERS: usize = 16;

/// Records every span of a dispatcher in a file.
///
/// # Behavior
/// - The file keeps all of the first 200,000 spans. Of further ones it keeps the statistics, the
///   slowest, the critical paths of the slowest root calls, a sample, and what contains these.
///   10,000,000 spans take some 70 MB.
/// - A thread writes the file, at least twice a second, so that a crash loses little.
/// - If the file cannot be written, the recording ends, and [`TraceFile::finish`] returns the error.
///   Nothing else is affected.
///
/// Use one for one dispatcher. See the [crate](crate) for an example.
#[derive(Debug)]
pub struct TraceFile {
    buffers: [Mutex<Vec<Arc<Span>>>; BUFFERS],
    messages: SyncSender<Message>,
    writer: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

#[derive(Debug)]
enum Message {
    Header(Header),
    Spans(Vec<Arc<Span>>),
    Label(Label),
    End,
}

impl TraceFile {
    /// Creates the file `path`, or replaces a trace.
    ///
    /// # Errors
    /// Errors if the file cannot be created, or with [`io::ErrorKind::AlreadyExists`] if it exists, is
    /// not empty and is no trace.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::with_bound(path, BOUND)
    }

    /// Like [`TraceFile::create`], but keeps all of the first `spans` spans instead of 200,000. The
    /// size of the file is proportional to it.
    ///
    /// # Errors
    /// As [`TraceFile::create`].
    pub fn with_bound(path: impl AsRef<Path>, spans: u64) -> io::Result<Self> {
        check_replaceable(path.as_ref())?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(format::MAGIC)?;
        file.flush()?;
        let (messages, inbox) = sync_channel(QUEUE);
        let writer = Writer {
            file,
            texts: Texts::default(),
            selection: Selection::new(spans),
            gatherer: Gatherer::default(),
            records: Vec::with_capacity(RECORDS),
            buffer: Vec::new(),
        };
        let writer = std::thread::Builder::new()
            .name("manifold-trace".to_owned())
            .spawn(move || writer.run(&inbox))?;
        Ok(Self { buffers: Default::default(), messages, writer: Mutex::new(Some(writer)) })
    }

    /// Adds a description of something in the trace.
    pub fn label(&self, label: Label) {
        let _ = self.messages.send(Message::Label(label));
    }

    /// Writes everything that was recorded so far and ends the recording.
    ///
    /// # Errors
    /// Errors if the file could not be written.
    pub fn finish(&self) -> io::Result<()> {
        let Some(writer) = self.writer.lock().take() else { return Ok(()) };
        for buffer in &self.buffers {
            self.pass_on(std::mem::take(&mut buffer.lock()));
        }
        // This fails if the writer has failed.
        let _ = self.messages.send(Message::End);
        writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer of the trace panicked")))
    }

    fn pass_on(&self, spans: Vec<Arc<Span>>) {
        if !spans.is_empty() {
            // This fails if the writer has failed, which `finish` reports.
            let _ = self.messages.send(Message::Spans(spans));
        }
    }
}

/// Errors if there is a file with content that is no trace, of this or another version.
fn check_replaceable(path: &Path) -> io::Result<()> {
    if !path.metadata().is_ok_and(|there| there.is_file() && there.len() > 0) {
        return Ok(());
    }
    let mut start = [0; format::NAME.len()];
    match File::open(path)?.read_exact(&mut start) {
        Ok(()) if start == format::NAME => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists and is not a trace; delete it, or name another file",
        )),
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        // A caller that needs the error calls `finish` itself.
        let _ = self.finish();
    }
}

impl Observer for TraceFile {
    fn on_event(&self, _: &Event<'_>) {}

    fn observes_spans(&self) -> bool {
        true
    }

    fn on_build(&self, observed: &Observed) {
        let began = observed.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header { began, permits: observed.permits as u64 };
        let _ = self.messages.send(Message::Header(header));
    }

    fn on_span_end(&self, span: &Arc<Span>) {
        thread_local!(static BUFFER: usize = buffer_of_this_thread());
        let buffer = BUFFER.try_with(|buffer| *buffer).unwrap_or_default();
        let full = {
            let mut spans = self.buffers[buffer].lock();
            spans.push(Arc::clone(span));
            // The end of a root call is passed on at once.
            let is_full = spans.len() >= BATCH || span.kind() == SpanKind::Call;
            if is_full { std::mem::replace(&mut *spans, Vec::with_capacity(BATCH)) } else { return }
        };
        self.pass_on(full);
    }
}

/// Threads are numbered as they come.
fn buffer_of_this_thread() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS
}

/// What writes the file, on a thread of its own.
struct Writer {
    file: BufWriter<File>,
    texts: Texts,
    selection: Selection,
    gatherer: Gatherer,
    /// The spans that are kept and not written yet.
    records: Vec<SpanRecord>,
    /// For the encoding of blocks.
    buffer: Vec<u8>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Message>) -> io::Result<()> {
        let (mut written, mut summed) = (Instant::now(), Instant::now());
        loop {
            match inbox.recv_timeout(INTERVAL) {
                Ok(Message::Header(header)) => self.write(&Block::Header(header))?,
                Ok(Message::Label(label)) => self.write(&Block::Label(label))?,
                Ok(Message::Spans(spans)) => spans.iter().for_each(|span| self.add(span)),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.records.len() >= RECORDS || written.elapsed() >= INTERVAL {
                self.write_records()?;
                written = Instant::now();
            }
            if !self.selection.is_complete() && summed.elapsed() >= STATISTICS_INTERVAL {
                self.write_records()?;
                self.write(&Block::Statistics(self.gatherer.statistics()))?;
                summed = Instant::now();
            }
        }
        self.write_records()?;
        let statistics = self.gatherer.statistics();
        let end = statistics.to;
        self.write(&Block::Statistics(statistics))?;
        self.write(&Block::End(end))?;
        self.file.flush()
    }

    fn add(&mut self, span: &Arc<Span>) {
        let mut record = self.texts.record(span);
        self.gatherer.add(&record);
        let Some(kept) = self.selection.keep(&record) else { return };
        record.kept = kept;
        self.records.push(record);
        if span.kind() == SpanKind::Call && !self.selection.is_complete() {
            for step in CriticalPath::of(span).steps() {
                let mut record = self.texts.record(&step.span);
                record.kept = Kept::Path;
                self.records.push(record);
            }
        }
    }

    fn write_records(&mut self) -> io::Result<()> {
        if !self.texts.new.is_empty() {
            let new = std::mem::take(&mut self.texts.new);
            self.write(&Block::Texts(new))?;
        }
        if self.records.is_empty() {
            return Ok(());
        }
        let block = Block::Spans(std::mem::take(&mut self.records));
        self.write(&block)?;
        if let Block::Spans(mut records) = block {
            records.clear();
            self.records = records;
        }
        self.file.flush()
    }

    fn write(&mut self, block: &Block) -> io::Result<()> {
        format::write(&mut self.file, block, &mut self.buffer)
    }
}

/// The texts of a file, which spans refer to.
#[derive(Default)]
struct Texts {
    indices: HashMap<String, u32, foldhash::fast::RandomState>,
    /// Those that are not written yet.
    new: Vec<String>,
}

/// The maximum number of texts. Errors can contain anything, and further ones are not told apart.
const MAX_TEXTS: usize = 100_000;
/// The maximum length of a text in characters.
const MAX_TEXT_CHARS: usize = 2000;

impl Texts {
    fn index(&mut self, text: &str) -> u32 {
        if let Some(index) = self.indices.get(text) {
            return *index;
        }
        let short: String = text.chars().take(MAX_TEXT_CHARS).collect();
        let next = self.indices.len();
        if next >= MAX_TEXTS {
            return 0;
        }
        let next = u32::try_from(next).unwrap_or_default();
        self.new.push(short);
        self.indices.insert(text.to_owned(), next);
        next
    }

    fn record(&mut self, span: &Span) -> SpanRecord {
        let (info, usage) = (span.info(), span.usage());
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let phases = span.phases().nanos().iter().enumerate();
        let phases = phases.filter(|(_, nanos)| **nanos > 0);
        let bytes = |id: manifold_runtime_api::ObjectId| {
            let mut bytes = [0; 20];
            let id = id.as_bytes();
            bytes.iter_mut().zip(id).for_each(|(byte, from)| *byte = *from);
            bytes
        };
        // The first text is the one that stands for all that are too many.
        if self.indices.is_empty() {
            self.index("(one of too many texts)");
        }
        SpanRecord {
            id: info.id().get(),
            parent: info.parent().map(|parent| parent.get()),
            root: info.root(),
            depth: info.depth(),
            kind: SpanKind::ALL.iter().position(|kind| *kind == span.kind()).unwrap_or(0) as u8,
            kept: Kept::All,
            request: bytes(info.request()),
            args: bytes(info.args()),
            image: self.index(info.image()),
            runtime: self.index(info.runtime()),
            began: nanos(info.began()),
            duration: nanos(span.duration()),
            phases: phases.map(|(phase, nanos)| (phase as u8, *nanos)).collect(),
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            children: [usage.runs, usage.hits, usage.joins],
            rewinds: usage.rewinds,
            memory_bytes: usage.memory_bytes,
            fuel: usage.fuel,
            result: match span.result() {
                Ok(outcome) => {
                    Ok((bytes(outcome.id), outcome.kind == manifold_runtime_api::ObjectKind::Tree))
                }
                Err(error) => Err(self.index(&error.root_cause().to_string())),
            },
            memoized: span.is_memoized(),
            last: span.last().map(|last| last.info().id().get()),
            after: span.after().map(|after| after.info().id().get()),
        }
    }
}
