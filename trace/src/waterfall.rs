//! [`Waterfall`]: the spans below one, indented by their nesting.

use std::collections::HashMap;
use std::time::Duration;

use crate::format::SpanRecord;
use crate::read::Trace;

/// A span in a waterfall.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Row<'a> {
    /// The span.
    pub span: &'a SpanRecord,
    /// How many levels it lies below the first one.
    pub level: u32,
    /// How many of its children are not shown.
    pub hidden: usize,
}

/// The spans below one, in depth-first order, each with its level.
#[derive(Debug)]
pub struct Waterfall<'a> {
    rows: Vec<Row<'a>>,
}

impl<'a> Waterfall<'a> {
    /// Returns the waterfall of `span`, with at most `rows` rows. If there are more spans, the shortest
    /// ones are left out.
    pub fn of(trace: &'a Trace, span: &'a SpanRecord, rows: usize) -> Self {
        let children = children(trace);
        let below = |span: &SpanRecord| children.get(&span.id).map_or(&[][..], Vec::as_slice);
        let shortest = shortest_shown(span, rows, below);
        let mut shown = Vec::new();
        let mut todo = vec![(span, 0)];
        while let Some((span, level)) = todo.pop() {
            let all = below(span);
            let visible = all.iter().rev().filter(|child| child.duration() >= shortest);
            let before = todo.len();
            todo.extend(visible.map(|child| (*child, level + 1)));
            let hidden = all.len() - (todo.len() - before);
            shown.push(Row { span, level, hidden });
        }
        shown.truncate(rows.max(1));
        Self { rows: shown }
    }

    /// Returns the rows.
    pub fn rows(&self) -> &[Row<'a>] {
        &self.rows
    }
}

/// Returns the children of each span, in the order of their beginnings.
fn children(trace: &Trace) -> HashMap<u64, Vec<&SpanRecord>> {
    let mut children: HashMap<u64, Vec<&SpanRecord>> = HashMap::new();
    for span in trace.spans() {
        if let Some(parent) = span.parent {
            children.entry(parent).or_default().push(span);
        }
    }
    children
}

/// Returns the duration of the shortest span that is shown, if `rows` are.
fn shortest_shown<'a, 'b: 'a>(
    span: &'b SpanRecord,
    rows: usize,
    below: impl Fn(&SpanRecord) -> &'a [&'b SpanRecord],
) -> Duration {
    let mut durations = Vec::new();
    let mut todo = vec![span];
    while let Some(span) = todo.pop() {
        durations.push(span.duration());
        todo.extend(below(span));
    }
    durations.sort_unstable_by(|a, b| b.cmp(a));
    durations.get(rows).copied().unwrap_or_default()
}
