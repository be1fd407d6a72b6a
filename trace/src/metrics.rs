//! [`Metrics`]: feeds the `metrics` facade.

use std::sync::Arc;

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use manifold_dispatcher::{Event, Observer, Phase, Span, SpanInfo, SpanKind};
use manifold_runtime_api::ErrorKind;

/// An observer that feeds the [`metrics`](::metrics) facade, so that any of its exporters gets the
/// numbers of a dispatcher.
///
/// | name | kind | unit | labels | what |
/// |---|---|---|---|---|
/// | `manifold_runs_total` | counter | runs | `runtime` | runs that have ended |
/// | `manifold_hits_total` | counter | requests | `runtime` | requests whose outcome came from the memo |
/// | `manifold_elsewhere_total` | counter | requests | `runtime` | requests whose runs were taken over, and whose outcomes came from elsewhere |
/// | `manifold_joins_total` | counter | requests | `runtime` | requests that joined a run of another caller |
/// | `manifold_failures_total` | counter | runs | `runtime`, `reason` | runs that failed: because of the `request`, the `guest`, a `limit`, the `store`, or the `runtime`, or because they were `cancelled` |
/// | `manifold_rewinds_total` | counter | | `runtime` | how often runs began again because an object was lost |
/// | `manifold_in_flight` | gauge | runs | | runs that have started and not ended |
/// | `manifold_queue_length` | gauge | runs | | runs that are wanted and have not started |
/// | `manifold_phase_seconds` | histogram | seconds | `runtime`, `phase` | the time that runs spent in each phase; `total` is the whole |
/// | `manifold_call_seconds` | histogram | seconds | | how long root calls took |
/// | `manifold_store_bytes` | gauge | bytes | | the size of the store's file; see [`Metrics::commit`] |
/// | `manifold_commit_seconds` | histogram | seconds | | how long commits of the store took |
///
/// ```
/// use manifold_dispatcher::{Dispatcher, DurableStore};
/// use manifold_trace::Metrics;
///
/// # let directory = tempfile::tempdir()?;
/// let store = DurableStore::options()
///     .on_commit(|commit| Metrics::commit(commit.time, commit.file_bytes))
///     .open(directory.path())?;
/// let dispatcher = Dispatcher::builder().store(store).observer(Metrics::new()).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Metrics;

impl Metrics {
    /// Creates the observer, and describes the metrics to the recorder that is installed.
    #[expect(clippy::new_without_default, reason = "it describes the metrics, too")]
    pub fn new() -> Self {
        describe_counter!("manifold_runs_total", Unit::Count, "Runs that have ended");
        describe_counter!("manifold_hits_total", Unit::Count, "Outcomes that came from the memo");
        describe_counter!(
            "manifold_elsewhere_total",
            Unit::Count,
            "Requests whose outcomes came from elsewhere"
        );
        describe_counter!("manifold_joins_total", Unit::Count, "Requests that joined a run");
        describe_counter!("manifold_failures_total", Unit::Count, "Runs that failed, by reason");
        describe_counter!("manifold_rewinds_total", Unit::Count, "Runs that began again");
        describe_gauge!("manifold_in_flight", Unit::Count, "Runs that have started and not ended");
        describe_gauge!("manifold_queue_length", Unit::Count, "Runs that have not started");
        describe_histogram!("manifold_phase_seconds", Unit::Seconds, "Time of runs in each phase");
        describe_histogram!("manifold_call_seconds", Unit::Seconds, "Time of root calls");
        describe_gauge!("manifold_store_bytes", Unit::Bytes, "Size of the store's file");
        describe_histogram!(
            "manifold_commit_seconds",
            Unit::Seconds,
            "Time of the store's commits"
        );
        Self
    }

    /// Records a commit of the store that took `time`, after which the file has `file_bytes` bytes.
    pub fn commit(time: std::time::Duration, file_bytes: u64) {
        histogram!("manifold_commit_seconds").record(time);
        gauge!("manifold_store_bytes").set(file_bytes as f64);
    }
}

/// Returns why a run has failed.
fn reason(span: &Span) -> Option<&'static str> {
    let error = span.result().err()?.root_cause();
    Some(match error.kind() {
        ErrorKind::Request => "request",
        ErrorKind::Guest => "guest",
        ErrorKind::Limit => "limit",
        ErrorKind::Store => "store",
        _ if matches!(error.reason(), manifold_runtime_api::Reason::Cancelled) => "cancelled",
        _ => "runtime",
    })
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Started { .. } = event {
            gauge!("manifold_queue_length").decrement(1.0);
            gauge!("manifold_in_flight").increment(1.0);
        }
    }

    fn observes_spans(&self) -> bool {
        true
    }

    fn on_span_start(&self, _: &SpanInfo, kind: SpanKind) {
        if kind == SpanKind::Run {
            gauge!("manifold_queue_length").increment(1.0);
        }
    }

    fn on_span_end(&self, span: &Arc<Span>) {
        let runtime = span.info().runtime().to_owned();
        match span.kind() {
            SpanKind::Run => {
                gauge!("manifold_in_flight").decrement(1.0);
                if let Some(reason) = reason(span) {
                    counter!("manifold_failures_total", "runtime" => runtime.clone(), "reason" => reason)
                        .increment(1);
                }
                counter!("manifold_rewinds_total", "runtime" => runtime.clone())
                    .increment(span.usage().rewinds);
                for phase in Phase::ALL {
                    let time = span.phases().get(phase);
                    histogram!(
                        "manifold_phase_seconds",
                        "runtime" => runtime.clone(),
                        "phase" => phase.as_str()
                    )
                    .record(time);
                }
                histogram!(
                    "manifold_phase_seconds", "runtime" => runtime.clone(), "phase" => "total"
                )
                .record(span.duration());
                counter!("manifold_runs_total", "runtime" => runtime).increment(1);
            }
            SpanKind::Hit => counter!("manifold_hits_total", "runtime" => runtime).increment(1),
            SpanKind::Join => counter!("manifold_joins_total", "runtime" => runtime).increment(1),
            SpanKind::Elsewhere => {
                counter!("manifold_elsewhere_total", "runtime" => runtime).increment(1);
            }
            SpanKind::Call => histogram!("manifold_call_seconds").record(span.duration()),
            _ => {}
        }
        // A run that was wanted, and has become something else before it started.
        let left_the_queue =
            matches!(span.kind(), SpanKind::Hit | SpanKind::Unstarted | SpanKind::Elsewhere);
        if left_the_queue && span.had_start() {
            gauge!("manifold_queue_length").decrement(1.0);
        }
    }
}
