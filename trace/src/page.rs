//! A trace as a page: one file that needs nothing else.

use std::collections::HashMap;
use std::io::{self, Write};

use manifold_dispatcher::{Phase, SpanKind};
use serde_json::{Value, json};

use crate::events::lanes;
use crate::format::SpanRecord;
use crate::read::{Trace, hexadecimal};

const TEMPLATE: &str = include_str!("page.html");

impl Trace {
    /// Writes a page that shows the spans that the trace keeps: a timeline, an icicle, the critical
    /// path of the slowest root call, and the summary. It needs a browser and nothing else.
    ///
    /// # Errors
    /// Errors if `out` does.
    pub fn write_page(&self, title: &str, mut out: impl Write) -> io::Result<()> {
        let data = serde_json::to_string(&self.page_data(title))?;
        // Within a script, nothing in the data may look like its end.
        let data = data.replace('<', "\\u003c");
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        let page = TEMPLATE.replace("{{title}}", &title);
        let (before, after) = page.split_once("{{data}}").unwrap_or((&page, ""));
        out.write_all(before.as_bytes())?;
        out.write_all(data.as_bytes())?;
        out.write_all(after.as_bytes())
    }

    fn page_data(&self, title: &str) -> Value {
        let spans = self.spans();
        let index: HashMap<u64, usize> =
            spans.iter().enumerate().map(|(index, span)| (span.id, index)).collect();
        let from = spans.iter().map(|span| span.began).min().unwrap_or(0);
        let mut texts = Texts::default();
        let rows: Vec<Value> = spans
            .iter()
            .zip(lanes(spans))
            .map(|(span, lane)| {
                let parent = span.parent.and_then(|parent| index.get(&parent));
                self.row(span, from, lane, parent.copied(), &mut texts)
            })
            .collect();
        let slowest = self.calls().max_by_key(|call| call.duration());
        let slowest = slowest.or_else(|| spans.iter().max_by_key(|span| span.duration()));
        let path = slowest.map(|call| self.critical_path(call));
        let (steps, delays) = match &path {
            Some(path) => {
                let steps = path
                    .steps
                    .iter()
                    .map(|(span, _, own)| json!([index.get(&span.id), own.as_secs_f64() * 1e9]));
                (steps.collect(), json!(path.delays))
            }
            None => (Vec::new(), json!([])),
        };
        json!({
            "title": title,
            "complete": self.is_complete(),
            "phases": Phase::ALL.map(Phase::as_str),
            "kinds": SpanKind::ALL.map(SpanKind::as_str),
            "texts": texts.all,
            "spans": rows,
            "path": steps,
            "delays": delays,
            "summary": self.summary(),
        })
    }

    /// The columns are those that `page.html` names.
    fn row(
        &self,
        span: &SpanRecord,
        from: u64,
        lane: usize,
        parent: Option<usize>,
        texts: &mut Texts,
    ) -> Value {
        let phases: Vec<_> =
            span.phases.iter().flat_map(|(phase, nanos)| [u64::from(*phase), *nanos]).collect();
        json!([
            span.began - from,
            span.duration,
            lane,
            parent,
            span.kind,
            texts.index(self.image(span)),
            texts.index(self.runtime(span)),
            hexadecimal(&span.request),
            phases,
            self.detail(span),
            self.error(span).map(|error| texts.index(error)),
            [span.read_bytes, span.written_bytes],
        ])
    }
}

/// Texts that many spans share.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    indices: HashMap<String, usize>,
}

impl Texts {
    fn index(&mut self, text: &str) -> usize {
        if let Some(index) = self.indices.get(text) {
            return *index;
        }
        self.all.push(text.to_owned());
        self.indices.insert(text.to_owned(), self.all.len() - 1);
        self.all.len() - 1
    }
}
