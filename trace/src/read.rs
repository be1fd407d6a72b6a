//! [`Trace`]: a trace that was read.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifold_dispatcher::{PathSpan, SpanKind};
use manifold_runtime_api::ObjectId;

use crate::format::{self, Block, Header, Kept, Label, Next, SpanRecord, Statistics};
use crate::statistics::Gatherer;

/// Why a file is not a trace that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read the trace {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The file is not a trace.
    #[error(
        "{} is not a trace, or one of another version: it does not begin with `manifold-trace 2`",
        path.display()
    )]
    NotATrace {
        /// The file.
        path: PathBuf,
    },
    /// The file has nothing that can be read after its first line.
    #[error("the trace {} is empty or damaged from the beginning", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A trace that was read from a file.
#[derive(Debug)]
pub struct Trace {
    pub(crate) header: Header,
    texts: Vec<String>,
    names: HashMap<String, String>,
    labels: Vec<Label>,
    /// In the order of their beginnings.
    spans: Vec<SpanRecord>,
    by_id: HashMap<u64, usize>,
    pub(crate) statistics: Statistics,
    is_complete: bool,
    has_ended: bool,
    details: HashMap<u64, String>,
}

impl Trace {
    /// Reads a trace. Of a file that is cut or damaged, what comes before that is read.
    ///
    /// # Errors
    /// Errors if the file cannot be read, or is not a trace.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let failed = |error| TraceError::Io { path: path.to_owned(), error };
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
        let mut magic = Vec::new();
        file.by_ref().take(format::MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
        if magic != format::MAGIC {
            return Err(TraceError::NotATrace { path: path.to_owned() });
        }
        let mut trace = Self {
            header: Header::default(),
            texts: Vec::new(),
            names: HashMap::new(),
            labels: Vec::new(),
            spans: Vec::new(),
            by_id: HashMap::new(),
            statistics: Statistics::default(),
            is_complete: true,
            has_ended: false,
            details: HashMap::new(),
        };
        let mut has_blocks = false;
        while let Next::Block(block) = format::read(&mut file).map_err(failed)? {
            has_blocks = true;
            trace.add(block);
        }
        if !has_blocks {
            return Err(TraceError::Empty { path: path.to_owned() });
        }
        trace.order();
        Ok(trace)
    }

    fn add(&mut self, block: Block) {
        match block {
            Block::Header(header) => self.header = header,
            Block::Texts(texts) => self.texts.extend(texts),
            Block::Spans(spans) => self.spans.extend(spans),
            Block::Statistics(statistics) => self.statistics = statistics,
            Block::Label(Label::Image { image, name }) => drop(self.names.insert(image, name)),
            Block::Label(label) => self.labels.push(label),
            Block::End(_) => self.has_ended = true,
        }
    }

    /// Orders the spans, and joins records of the same one.
    fn order(&mut self) {
        // A span comes after its parent. Of two records, the one that is kept for a reason comes first.
        let order = |span: &SpanRecord| {
            (span.began, Reverse(span.duration), span.id, span.kept != Kept::Path)
        };
        self.spans.sort_by_key(order);
        self.spans.dedup_by_key(|span| span.id);
        let by_id: HashMap<_, _> =
            self.spans.iter().enumerate().map(|(index, span)| (span.id, index)).collect();
        for (index, span) in self.spans.iter_mut().enumerate() {
            // So that no damage makes parents go in circles.
            let parent = span.parent.and_then(|parent| by_id.get(&parent));
            if parent.is_some_and(|parent| *parent >= index) {
                span.parent = None;
            }
        }
        self.by_id = by_id;
        self.is_complete = self.spans.iter().all(|span| span.kept == Kept::All);
        if self.is_complete {
            // The recording may have been cut before it wrote the statistics.
            let mut gatherer = Gatherer::default();
            self.spans.iter().for_each(|span| gatherer.add(span));
            self.statistics = gatherer.statistics();
        }
    }

    /// Returns whether the trace keeps every span that has ended. If not, it keeps a selection, and
    /// the statistics of all.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns whether the recording was ended. If not, the program was stopped while it recorded,
    /// and what happened in its last second is missing.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the number of all spans, also of those that the trace does not keep.
    pub const fn span_count(&self) -> u64 {
        self.statistics.spans
    }

    /// Returns when the dispatcher was built, as the time since 1970. Times of spans count from then.
    pub const fn began(&self) -> Duration {
        self.header.began
    }

    /// Returns the time between the beginning of the first span and the end of the last one.
    pub const fn wall_time(&self) -> Duration {
        Duration::from_nanos(self.statistics.to.saturating_sub(self.statistics.from))
    }

    /// Returns the spans that the trace keeps, in the order of their beginnings.
    pub fn spans(&self) -> &[SpanRecord] {
        &self.spans
    }

    /// Returns the root calls that the trace keeps, in the order of their beginnings.
    pub fn calls(&self) -> impl Iterator<Item = &SpanRecord> {
        self.spans.iter().filter(|span| span.kind() == SpanKind::Call)
    }

    /// Returns the span with the number `id`, if the trace keeps it.
    pub fn span(&self, id: u64) -> Option<&SpanRecord> {
        self.by_id.get(&id).map(|index| &self.spans[*index])
    }

    /// Returns the labels, apart from the names of images.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Returns what people call the image of `span`: its label if it has one, and the image reference
    /// otherwise.
    pub fn image(&self, span: &SpanRecord) -> &str {
        self.image_name(span.image)
    }

    pub(crate) fn image_name(&self, image: u32) -> &str {
        let image = self.text(image);
        self.names.get(image).map_or(image, String::as_str)
    }

    /// Returns the name of the runtime of `span`.
    pub fn runtime(&self, span: &SpanRecord) -> &str {
        self.text(span.runtime)
    }

    pub(crate) fn text(&self, index: u32) -> &str {
        self.texts.get(index as usize).map_or("?", String::as_str)
    }

    /// Returns the error with which `span` ended, if it failed.
    pub fn error(&self, span: &SpanRecord) -> Option<&str> {
        span.result.err().map(|index| self.text(index))
    }

    /// Returns the id of the request of `span`.
    pub fn request(&self, span: &SpanRecord) -> Option<ObjectId> {
        ObjectId::from_bytes(&span.request).ok()
    }

    /// Returns the id of the tree of arguments of `span`.
    pub fn args(&self, span: &SpanRecord) -> Option<ObjectId> {
        ObjectId::from_bytes(&span.args).ok()
    }

    /// Sets what to show of each span beside its image, such as the path of its input, where `detail`
    /// knows it.
    pub fn set_details(&mut self, mut detail: impl FnMut(&SpanRecord) -> Option<String>) {
        let details = self.spans.iter().filter_map(|span| Some((span.id, detail(span)?)));
        self.details = details.collect();
    }

    /// Returns what is to be shown of `span` beside its image.
    pub fn detail(&self, span: &SpanRecord) -> Option<&str> {
        self.details.get(&span.id).map(String::as_str)
    }

    /// Returns the spans whose request's id begins with these hexadecimal digits.
    pub fn find(&self, digits: &str) -> Vec<&SpanRecord> {
        let digits = digits.to_ascii_lowercase();
        let matches = |span: &&SpanRecord| hexadecimal(&span.request).starts_with(&digits);
        self.spans.iter().filter(matches).collect()
    }

    /// Returns the spans that the trace keeps whose own time is largest, the slowest first.
    pub fn slowest(&self, count: usize) -> Vec<&SpanRecord> {
        let mut spans: Vec<_> = self.spans.iter().collect();
        spans.sort_by_key(|span| Reverse(span.own()));
        spans.truncate(count);
        spans
    }
}

/// Returns the hexadecimal digits of an id.
pub(crate) fn hexadecimal(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter().fold(String::with_capacity(40), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A span in its trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InTrace<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) span: &'a SpanRecord,
}

impl InTrace<'_> {
    fn other(&self, id: Option<u64>) -> Option<Self> {
        let span = self.trace.span(id?)?;
        Some(Self { span, ..*self })
    }
}

impl PathSpan for InTrace<'_> {
    fn began(&self) -> Duration {
        self.span.began()
    }

    fn ended(&self) -> Duration {
        self.span.ended()
    }

    fn last(&self) -> Option<Self> {
        self.other(self.span.last)
    }

    fn after(&self) -> Option<Self> {
        self.other(self.span.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waterfall::Waterfall;

    /// A span from 10 to 20 with these links.
    fn span(id: u64, parent: Option<u64>, last: Option<u64>, after: Option<u64>) -> SpanRecord {
        SpanRecord {
            id,
            parent,
            root: 0,
            depth: 0,
            kind: 1,
            kept: Kept::All,
            request: [1; 20],
            args: [2; 20],
            image: 7,
            runtime: u32::MAX,
            began: 10,
            duration: 10,
            phases: vec![(200, u64::MAX), (5, 3)],
            read_bytes: u64::MAX,
            written_bytes: 0,
            children: [0; 3],
            rewinds: 0,
            memory_bytes: None,
            fuel: Some(u64::MAX),
            result: Err(9),
            memoized: false,
            last,
            after,
        }
    }

    #[test]
    fn links_in_circles_and_numbers_out_of_range_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let mut file = format::MAGIC.to_vec();
        let spans = vec![
            span(1, Some(2), Some(1), Some(1)),
            span(2, Some(1), Some(3), Some(2)),
            span(3, Some(3), Some(2), Some(1)),
        ];
        format::write(&mut file, &Block::Spans(spans), &mut Vec::new()).unwrap();
        std::fs::write(&path, file).unwrap();
        let trace = Trace::read(&path).unwrap();
        assert_eq!(trace.spans().len(), 3);
        assert!(!trace.has_ended());
        trace.summary();
        for span in trace.spans() {
            trace.critical_path(span);
            assert!(Waterfall::of(&trace, span, 10).rows().len() <= 3);
        }
        trace.write_events(Vec::new()).unwrap();
        trace.write_page("circles", Vec::new()).unwrap();
    }
}
