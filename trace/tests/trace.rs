//! Traces of native guests: what a complete, a bounded and a cut trace say.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{Call, Error, ObjectRef, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation, Phase, SpanKind, Stats};
use manifold_testing::spans::SpanJournal;
use manifold_trace::{Kept, Label, Trace, TraceError, TraceFile, Waterfall};

/// The guest `tree`: a node of depth `n` runs two of depth `n - 1`, one of them twice. Depth 0 sleeps
/// for a moment.
async fn tree(guest: NativeGuest) -> Result<ObjectRef> {
    let text = guest.text("n").await?;
    let (depth, place) = text.split_once(' ').ok_or_else(|| Error::guest_failed("no place"))?;
    let depth: u32 = depth.parse().map_err(|_| Error::guest_failed("not a number"))?;
    if depth == 0 {
        tokio::time::sleep(Duration::from_micros(50)).await;
        return guest.blob(text).await;
    }
    let mut calls = Vec::new();
    for child in ["l", "r"] {
        let text = format!("{} {place}{child}", depth - 1);
        let argument = argument("n", guest.blob(text).await?);
        let args = guest.put_tree([argument]).await?;
        calls.push(Call { image: guest.job().image.to_string(), args });
    }
    let again = calls[0].clone();
    guest.host().run_many(calls).await.into_iter().collect::<Result<Vec<_>>>()?;
    guest.host().run(again).await?;
    guest.blob(text).await
}

/// Traces a tree of depth `depth`, which is a call, 2^(depth + 1) - 1 runs and 2^depth - 1 hits.
async fn record(path: &Path, bound: u64, depth: u32) -> (Stats, Arc<SpanJournal>) {
    let (file, journal) =
        (Arc::new(TraceFile::with_bound(path, bound).unwrap()), Arc::new(SpanJournal::default()));
    let guests = NativeRuntime::builder("trees", "1").guest("tree", tree).build().unwrap();
    let dispatcher = Dispatcher::builder()
        .permits(2)
        .observer(Arc::clone(&file))
        .observer(Arc::clone(&journal))
        .build()
        .unwrap();
    let host = dispatcher.add_runtime(guests).unwrap();
    let image = dispatcher.install(host, "tree").unwrap();
    file.label(Label::Image { image: image.to_string(), name: "a tree".to_owned() });
    file.label(Label::Command(vec!["test".to_owned()]));
    dispatcher.run(Invocation::new(image).arg("n", format!("{depth} "))).await.unwrap();
    journal.wait();
    file.finish().unwrap();
    (dispatcher.stats(), journal)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_trace_says_what_the_spans_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    let (stats, journal) = record(&path, 10_000, 5).await;
    let trace = Trace::read(&path).unwrap();
    assert!(trace.is_complete() && trace.has_ended());
    assert_eq!(trace.labels(), [Label::Command(vec!["test".to_owned()])]);
    let spans = journal.spans();
    assert_eq!(trace.spans().len(), spans.len());
    for span in &spans {
        let record = trace.span(span.info().id().get()).unwrap();
        assert_eq!(record.parent, span.info().parent().map(|parent| parent.get()));
        assert_eq!((record.began(), record.ended()), (span.info().began(), span.ended()));
        for phase in Phase::ALL {
            assert_eq!(record.phase(phase), span.phases().get(phase));
        }
        assert_eq!(record.kind(), span.kind());
        assert_eq!(trace.request(record), Some(span.info().request()));
        assert_eq!((trace.image(record), trace.runtime(record)), ("a tree", "trees"));
    }
    let summary = trace.summary();
    let total = summary.total;
    assert_eq!((total.calls, total.runs, total.hits), (1, stats.runs, stats.hits));
    assert_eq!((summary.spans, summary.permits, summary.depth), (spans.len() as u64, 2, 5));
    assert!(summary.busy > 0.0 && summary.busy < 1.01, "{summary:?}");
    let [image] = &summary.images[..] else { panic!("{:?}", summary.images) };
    let runs = || spans.iter().filter(|span| span.kind() == SpanKind::Run);
    for phase in &image.phases {
        let times: Vec<f64> = match Phase::ALL.iter().find(|other| other.as_str() == phase.phase) {
            Some(of) => runs().map(|span| span.phases().get(*of).as_secs_f64()).collect(),
            None => runs().map(|span| span.duration().as_secs_f64()).collect(),
        };
        let (sum, max) = (times.iter().sum::<f64>(), times.iter().copied().fold(0.0, f64::max));
        assert!((phase.sum_seconds - sum).abs() < 1e-6, "{phase:?}, {sum}");
        assert!((phase.max_seconds - max).abs() < 1e-9, "{phase:?}, {max}");
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[(sorted.len() - 1) / 2];
        assert!((phase.p50_seconds - median).abs() <= median * 0.02 + 1e-9, "{phase:?}, {median}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_critical_path_and_the_waterfall_cover_a_call() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    record(&path, 10_000, 4).await;
    let trace = Trace::read(&path).unwrap();
    let call = trace.calls().next().unwrap();
    let report = trace.critical_path(call);
    let sum: Duration = report.steps.iter().map(|(_, _, own)| *own).sum();
    assert_eq!(sum, call.duration());
    let delays: f64 = report.delays.iter().map(|delay| delay.seconds).sum();
    assert!((delays - call.duration().as_secs_f64()).abs() < 1e-6);
    assert_eq!(report.steps.iter().map(|(_, level, _)| *level).max(), Some(5), "down to a leaf");

    let all = Waterfall::of(&trace, call, 1000);
    assert_eq!(all.rows().len(), trace.spans().len());
    let shown: HashSet<_> = all.rows().iter().map(|row| row.span.id).collect();
    assert_eq!(shown.len(), trace.spans().len());
    let some = Waterfall::of(&trace, call, 8);
    assert!(some.rows().len() <= 8, "{some:?}");
    assert!(some.rows().iter().any(|row| row.hidden > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_trace_keeps_all_statistics_and_a_marked_selection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    let (stats, journal) = record(&path, 400, 11).await;
    let trace = Trace::read(&path).unwrap();
    assert!(!trace.is_complete() && trace.has_ended());
    let total = trace.summary().total;
    assert_eq!((total.calls, total.runs, total.hits), (1, stats.runs, stats.hits));
    let all = journal.spans();
    assert_eq!(trace.span_count(), all.len() as u64);
    assert!(trace.spans().len() < all.len() / 2, "{} of {}", trace.spans().len(), all.len());
    let count = |is: fn(&Kept) -> bool| trace.spans().iter().filter(|span| is(&span.kept)).count();
    assert_eq!(count(|kept| matches!(kept, Kept::All)), 400);

    // The critical path of the call is complete.
    let call = trace.calls().next().unwrap();
    let kept = trace.critical_path(call);
    let whole = all.iter().find(|span| span.kind() == SpanKind::Call).unwrap();
    let whole = manifold_dispatcher::CriticalPath::of(whole);
    assert_eq!(
        kept.steps.iter().map(|(span, _, own)| (span.id, *own)).collect::<Vec<_>>(),
        whole
            .steps()
            .iter()
            .map(|step| (step.span.info().id().get(), step.own))
            .collect::<Vec<_>>()
    );
    // So are the slowest spans.
    let own = |span: &manifold_dispatcher::Span| {
        let waiting = [Phase::Nested, Phase::Wait, Phase::Queue, Phase::Outside];
        span.duration() - waiting.iter().map(|phase| span.phases().get(*phase)).sum::<Duration>()
    };
    let mut slowest: Vec<_> = all.iter().collect();
    slowest.sort_by_key(|span| std::cmp::Reverse(own(span)));
    for span in &slowest[..20] {
        assert!(trace.span(span.info().id().get()).is_some(), "{span:?}");
    }
    // The sample stands for all that are kept for no other reason.
    let sampled: u64 = trace.spans().iter().fold(0, |sum, span| match span.kept {
        Kept::Sample(weight) => sum + u64::from(weight),
        _ => sum,
    });
    let others = count(|kept| !matches!(kept, Kept::Sample(_))) as u64;
    let expected = all.len() as u64 - others;
    assert!(sampled > expected / 2 && sampled < expected * 2, "{sampled}, expected {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_or_damaged_trace_is_read_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    record(&path, 100, 7).await;
    let whole = std::fs::read(&path).unwrap();
    let full = Trace::read(&path).unwrap();
    let cut = directory.path().join("cut");
    let mut spans = 0;
    for length in (0..whole.len()).step_by(whole.len() / 200) {
        std::fs::write(&cut, &whole[..length]).unwrap();
        match Trace::read(&cut) {
            Ok(trace) => {
                assert!(!trace.has_ended());
                assert!(trace.spans().len() >= spans, "a longer file has at least as much");
                spans = trace.spans().len();
                trace.summary();
                for call in trace.calls() {
                    trace.critical_path(call);
                }
            }
            Err(TraceError::NotATrace { .. } | TraceError::Empty { .. }) => assert_eq!(spans, 0),
            Err(error) => panic!("{error}"),
        }
        let mut damaged = whole.clone();
        damaged[length] ^= 0x55;
        std::fs::write(&cut, &damaged).unwrap();
        if let Ok(trace) = Trace::read(&cut) {
            assert!(trace.spans().len() <= full.spans().len());
        }
    }
    let error = Trace::read(directory.path().join("missing")).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_track_are_nested_in_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    record(&path, 10_000, 7).await;
    let trace = Trace::read(&path).unwrap();
    let mut json = Vec::new();
    trace.write_events(&mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    assert_eq!(events.len(), trace.spans().len() + 1);
    let mut tracks: HashMap<u64, Vec<(f64, f64)>> = HashMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let (begin, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
        tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((begin, begin + length));
    }
    for track in tracks.values_mut() {
        track.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (begin, end) in track {
            open.retain(|other| *other > *begin + 1e-6);
            assert!(open.iter().all(|other| *other >= *end - 1e-6), "{begin} {end} in {open:?}");
            open.push(*end);
        }
    }
}

#[test]
fn an_unwritable_file_is_an_error_at_the_end_and_nothing_else() {
    let error = TraceFile::create("/nowhere/trace").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    if !Path::new("/dev/full").exists() {
        return;
    }
    // The device is full from the first byte, so the error comes when the file is created.
    TraceFile::create("/dev/full").unwrap_err();
}
