//! A trace as Chrome's trace events, which Perfetto and speedscope open.
//!
//! The format is described in Chrome's "Trace Event Format". Spans overlap freely, while the events of
//! one track have to be nested in each other. So spans are divided into lanes: a span lies directly
//! below its parent if nothing else does at that time, and in another lane otherwise.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::io::{self, Write};

use manifold_dispatcher::Phase;
use serde_json::json;

use crate::format::SpanRecord;
use crate::read::{Trace, hexadecimal};

impl Trace {
    /// Writes the spans that the trace keeps as Chrome's trace events, in JSON.
    ///
    /// # Errors
    /// Errors if `out` does.
    pub fn write_events(&self, mut out: impl Write) -> io::Result<()> {
        write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        let name = json!({
            "ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "manifold"},
        });
        write!(out, "{name}")?;
        let lanes = lanes(self.spans());
        for (span, lane) in self.spans().iter().zip(&lanes) {
            write!(out, ",\n{}", self.event(span, *lane))?;
        }
        writeln!(out, "]}}")
    }

    fn event(&self, span: &SpanRecord, lane: usize) -> serde_json::Value {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let phases = Phase::ALL.iter().filter(|phase| !span.phase(**phase).is_zero());
        let phases: serde_json::Map<_, _> = phases
            .map(|phase| {
                let micros = span.phase(*phase).as_secs_f64() * 1e6;
                (format!("{} (µs)", phase.as_str()), json!(micros))
            })
            .collect();
        let mut args = json!({
            "request": hexadecimal(&span.request),
            "kind": span.kind().as_str(),
            "depth": span.depth,
            "runtime": self.runtime(span),
            "read (bytes)": span.read_bytes,
            "written (bytes)": span.written_bytes,
        });
        if let Some(args) = args.as_object_mut() {
            args.extend(phases);
            args.extend(self.detail(span).map(|detail| ("in".to_owned(), json!(detail))));
            args.extend(self.error(span).map(|error| ("error".to_owned(), json!(error))));
        }
        json!({
            "ph": "X",
            "pid": 1,
            "tid": lane + 1,
            "ts": micros(span.began),
            "dur": micros(span.duration),
            "name": self.image(span),
            "cat": span.kind().as_str(),
            "args": args,
        })
    }
}

/// Returns the lane of each span. `spans` are in the order of their beginnings.
pub(crate) fn lanes(spans: &[SpanRecord]) -> Vec<usize> {
    // The ends and numbers of the spans that are open in each lane, the innermost last.
    let mut open: Vec<Vec<(u64, u64)>> = Vec::new();
    let mut free: BTreeSet<usize> = BTreeSet::new();
    // The lanes that are not free, by the end of their outermost span.
    let mut busy: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut lane_of: HashMap<u64, usize> = HashMap::new();
    let mut order: Vec<usize> = (0..spans.len()).collect();
    // Of spans that begin together, the longer one contains the other.
    order.sort_by_key(|index| (spans[*index].began, Reverse(spans[*index].duration)));
    let mut lanes = vec![0; spans.len()];
    for index in order {
        let span = &spans[index];
        let (began, ended) = (span.began, span.began.saturating_add(span.duration));
        while let Some(Reverse((end, lane))) = busy.peek().copied()
            && end <= began
        {
            busy.pop();
            open[lane].clear();
            free.insert(lane);
        }
        let of_parent = span.parent.and_then(|parent| lane_of.get(&parent).copied());
        let lane = of_parent.filter(|lane| {
            let open = &mut open[*lane];
            while open.last().is_some_and(|(end, _)| *end <= began) {
                open.pop();
            }
            open.last().is_some_and(|(end, id)| *end >= ended && Some(*id) == span.parent)
        });
        let lane = lane.unwrap_or_else(|| {
            let lane = free.pop_first().unwrap_or_else(|| {
                open.push(Vec::new());
                open.len() - 1
            });
            busy.push(Reverse((ended, lane)));
            lane
        });
        open[lane].push((ended, span.id));
        lane_of.insert(span.id, lane);
        lanes[index] = lane;
    }
    lanes
}
