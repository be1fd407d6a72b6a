//! The critical path of a root call, and what would have to be faster.

use std::collections::BTreeMap;
use std::time::Duration;

use manifold_dispatcher::{CriticalPath, Phase, SpanKind};
use serde::Serialize;

use crate::format::SpanRecord;
use crate::read::{InTrace, Trace};

/// A part of the time of a critical path.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Delay {
    /// The name of the image, or of what is not an image's time.
    pub image: String,
    /// The runtime.
    pub runtime: String,
    /// What the time was spent on.
    pub phase: &'static str,
    /// The time in seconds.
    pub seconds: f64,
    /// The share of the whole path.
    pub share: f64,
    /// The number of spans on the path that spent it.
    pub spans: u64,
}

/// The critical path of a span.
#[derive(Debug)]
#[non_exhaustive]
pub struct PathReport<'a> {
    /// The spans on the path, each with its level below the first and the time that it accounts for
    /// itself. A span comes before its children, and these from the last to the first.
    pub steps: Vec<(&'a SpanRecord, u32, Duration)>,
    /// What the time was spent on, the largest part first.
    pub delays: Vec<Delay>,
}

impl Trace {
    /// Returns the critical path of `span`: the chain of spans that its time consists of.
    pub fn critical_path<'a>(&'a self, span: &'a SpanRecord) -> PathReport<'a> {
        let path = CriticalPath::of(&InTrace { trace: self, span });
        let steps: Vec<_> =
            path.steps().iter().map(|step| (step.span.span, step.level, step.own)).collect();
        let mut delays: BTreeMap<(&str, &str, &'static str), (Duration, u64)> = BTreeMap::new();
        for (span, _, own) in &steps {
            let key = |phase| match span.kind() {
                SpanKind::Call => ("(root call)", "", phase),
                _ => (self.image(span), self.runtime(span), phase),
            };
            // What the phases do not explain was spent between children, or waiting for a thread.
            let mut rest = *own;
            for phase in Phase::ALL.iter().filter(|phase| !matches!(phase, Phase::Nested)) {
                let time = span.phase(*phase).min(rest);
                if !time.is_zero() {
                    let delay = delays.entry(key(phase.as_str())).or_default();
                    (delay.0, delay.1) = (delay.0 + time, delay.1 + 1);
                    rest -= time;
                }
            }
            if !rest.is_zero() {
                let delay = delays.entry(key("between children")).or_default();
                (delay.0, delay.1) = (delay.0 + rest, delay.1 + 1);
            }
        }
        let whole = span.duration().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut delays: Vec<_> = delays
            .into_iter()
            .map(|((image, runtime, phase), (time, spans))| Delay {
                image: image.to_owned(),
                runtime: runtime.to_owned(),
                phase,
                seconds: time.as_secs_f64(),
                share: time.as_secs_f64() / whole,
                spans,
            })
            .collect();
        delays.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        PathReport { steps, delays }
    }
}
