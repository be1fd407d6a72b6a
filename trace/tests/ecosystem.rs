//! Spans for `tracing`, and numbers for the `metrics` facade.
#![cfg(all(feature = "tracing", feature = "metrics"))]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use manifold_dispatcher::api::{Call, Error, ObjectRef, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime};
use manifold_dispatcher::{Budget, Dispatcher, DurableStore, Invocation, Stats};
use manifold_testing::spans::SpanJournal;
use manifold_trace::{Metrics, TracingSpans};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// The guest `sum`: of 0 it is a leaf, of 13 it fails, of others it runs the number below twice.
async fn sum(guest: NativeGuest) -> Result<ObjectRef> {
    let number: u32 =
        guest.text("n").await?.parse().map_err(|_| Error::guest_failed("not a number"))?;
    match number {
        0 => return guest.blob("0").await,
        13 => return Err(Error::guest_failed("13 is no good number")),
        _ => {}
    }
    let below = guest.blob((number - 1).to_string()).await?;
    let args = guest.put_tree([manifold_dispatcher::native::argument("n", below)]).await?;
    let image = guest.job().image.to_string();
    guest.host().run(Call { image: image.clone(), args }).await?;
    let again = Call { image, args };
    guest
        .host()
        .run_many(vec![again.clone(), again])
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    guest.blob(number.to_string()).await
}

/// Runs some calls, of which one fails and one has a budget that is too small.
async fn work(build: impl FnOnce(manifold_dispatcher::DispatcherBuilder) -> Dispatcher) -> Stats {
    let guests = NativeRuntime::builder("sums", "1").guest("sum", sum).build().unwrap();
    let journal = Arc::new(SpanJournal::default());
    let dispatcher = build(Dispatcher::builder().observer(Arc::clone(&journal)));
    let host = dispatcher.add_runtime(guests).unwrap();
    let image = dispatcher.install(host, "sum").unwrap();
    let call = |number: &str| Invocation::new(image).arg("n", number);
    dispatcher.run(call("9")).await.unwrap();
    dispatcher.run(call("9")).await.unwrap();
    dispatcher.run(call("14")).await.unwrap_err();
    dispatcher.run(call("30").budget(Budget::new().depth(2)).salt("a")).await.unwrap_err();
    journal.wait();
    dispatcher.flush().unwrap();
    dispatcher.stats()
}

#[tokio::test]
async fn metrics_agree_with_the_counters() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    recorder.install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let stats = work(|builder| {
        let store = DurableStore::options()
            .on_commit(|commit| Metrics::commit(commit.time, commit.file_bytes))
            .open(directory.path())
            .unwrap();
        builder.store(store).observer(Metrics::new()).build().unwrap()
    })
    .await;
    let mut numbers: HashMap<String, f64> = HashMap::new();
    let mut labels: HashMap<String, Vec<String>> = HashMap::new();
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        let number = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(gauge) => gauge.0,
            DebugValue::Histogram(values) => values.len() as f64,
        };
        *numbers.entry(name.clone()).or_default() += number;
        labels
            .entry(name)
            .or_default()
            .extend(key.key().labels().map(|label| label.value().to_owned()));
    }
    let number =
        |name: &str| numbers.get(name).copied().unwrap_or_else(|| panic!("{name}: {numbers:?}"));
    assert_eq!(number("manifold_runs_total"), stats.runs as f64);
    assert_eq!(number("manifold_hits_total"), stats.hits as f64);
    assert_eq!(number("manifold_failures_total"), stats.failures as f64);
    assert_eq!(number("manifold_call_seconds"), 4.0);
    assert_eq!((number("manifold_in_flight"), number("manifold_queue_length")), (0.0, 0.0));
    assert!(number("manifold_store_bytes") > 0.0 && number("manifold_commit_seconds") > 0.0);
    assert_eq!(
        number("manifold_phase_seconds"),
        stats.runs as f64 * 13.0,
        "12 phases and the total"
    );
    let reasons = &labels["manifold_failures_total"];
    for reason in ["guest", "limit", "sums"] {
        assert!(reasons.iter().any(|label| label == reason), "{reasons:?}");
    }
}

/// A span that was closed: its name, its parent's name, and its fields.
type Closed = (&'static str, Option<&'static str>, HashMap<&'static str, String>);

/// A layer that collects the spans that were closed.
#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Vec<Closed>>>);

struct Fields(HashMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collect {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        id: &tracing::span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields(HashMap::new());
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(
        &self,
        id: &tracing::span::Id,
        values: &tracing::span::Record<'_>,
        context: Context<'_, S>,
    ) {
        let span = context.span(id).unwrap();
        let mut extensions = span.extensions_mut();
        values.record(extensions.get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: tracing::span::Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<Fields>().unwrap().0;
        let parent = span.parent().map(|parent| parent.name());
        self.0.lock().unwrap().push((span.name(), parent, fields));
    }
}

#[test]
fn spans_of_tracing_are_nested_and_have_their_fields() {
    let collect = Collect::default();
    let subscriber = Registry::default().with(
        collect.clone().with_filter(
            tracing_subscriber::filter::Targets::new()
                .with_target("manifold_trace::spans", tracing::Level::TRACE),
        ),
    );
    let stats = tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(work(|builder| builder.observer(TracingSpans::new()).build().unwrap()))
    });
    let spans = collect.0.lock().unwrap();
    let count = |name: &str| spans.iter().filter(|(other, _, _)| *other == name).count() as u64;
    assert_eq!((count("call"), count("hit")), (4, stats.hits));
    // A run that was refused at the depth bound is a span, too.
    assert_eq!(count("run"), stats.runs + 1);
    for (name, parent, fields) in spans.iter() {
        let expected: &[Option<&str>] =
            if *name == "call" { &[None] } else { &[Some("call"), Some("run")] };
        assert!(expected.contains(parent), "{name} below {parent:?}");
        assert_eq!(fields["runtime"], "\"sums\"");
        assert!(fields.contains_key("outcome") != fields.contains_key("error"), "{fields:?}");
        assert!(fields.contains_key("request") && fields.contains_key("depth"), "{fields:?}");
        if *name == "run" && fields.contains_key("outcome") {
            assert!(fields["compute_ns"].parse::<u64>().unwrap() > 0, "{fields:?}");
        }
    }
    let failed = |text: &str| {
        spans
            .iter()
            .any(|(_, _, fields)| fields.get("error").is_some_and(|error| error.contains(text)))
    };
    assert!(failed("13 is no good number"));
}
