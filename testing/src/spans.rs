//! An observer that collects spans, and checks that their numbers add up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifold_dispatcher::api::Reason;
use manifold_dispatcher::{
    CriticalPath, Event, Observer, Phase, Span, SpanId, SpanInfo, SpanKind, Stats,
};

/// An observer that collects spans.
#[derive(Debug, Default)]
pub struct SpanJournal {
    started: Mutex<HashMap<SpanId, SpanKind>>,
    ended: Mutex<Vec<Arc<Span>>>,
}

impl Observer for SpanJournal {
    fn on_event(&self, _: &Event<'_>) {}

    fn observes_spans(&self) -> bool {
        true
    }

    fn on_span_start(&self, span: &SpanInfo, kind: SpanKind) {
        let before = self.started.lock().unwrap().insert(span.id(), kind);
        assert_eq!(before, None, "{span:?} starts twice");
    }

    fn on_span_end(&self, span: &Arc<Span>) {
        self.ended.lock().unwrap().push(Arc::clone(span));
    }
}

impl SpanJournal {
    /// Returns the spans that have ended, in the order of their ends.
    pub fn spans(&self) -> Vec<Arc<Span>> {
        self.ended.lock().unwrap().clone()
    }

    /// Waits until every span that has started has ended. Runs without a waiter are stopped in the
    /// background.
    pub fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ended: HashSet<_> = self.spans().iter().map(|span| span.info().id()).collect();
            let started = self.started.lock().unwrap();
            let open: Vec<_> = started.iter().filter(|(id, _)| !ended.contains(id)).collect();
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "spans without an end: {open:?}");
            drop(started);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asserts what holds for all spans of a dispatcher that has done the work of `stats` and is idle
    /// ([`SpanJournal::wait`]).
    /// `patient` says that no caller stopped waiting for what it had wanted, and `was_taken` that runs
    /// were taken over.
    pub fn check(&self, stats: Stats, patient: bool, was_taken: bool) {
        let spans = self.spans();
        let by_id: HashMap<_, _> = spans.iter().map(|span| (span.info().id(), span)).collect();
        assert_eq!(by_id.len(), spans.len(), "a span has ended twice");
        let count = |kind| spans.iter().filter(|span| span.kind() == kind).count() as u64;
        assert_eq!(
            (count(SpanKind::Hit), count(SpanKind::Join)),
            (stats.hits, stats.joins),
            "{stats:?}"
        );
        // A run that is taken over and given back begins again.
        let runs = count(SpanKind::Run);
        assert!(runs == stats.runs || was_taken && runs <= stats.runs, "{runs} in {stats:?}");
        let elsewhere = count(SpanKind::Elsewhere);
        assert!(elsewhere == stats.arrived || was_taken && elsewhere <= stats.arrived, "{stats:?}");
        assert_eq!(spans.iter().map(|span| span.usage().rewinds).sum::<u64>(), stats.rewinds);
        let mut children: HashMap<SpanId, Vec<&Arc<Span>>> = HashMap::new();
        let started = self.started.lock().unwrap();
        for span in &spans {
            let info = span.info();
            let sum: Duration = Phase::ALL.iter().map(|phase| span.phases().get(*phase)).sum();
            assert_eq!(sum, span.duration(), "{span:?}");
            let starts = matches!(span.kind(), SpanKind::Call | SpanKind::Run | SpanKind::Join);
            assert!(!starts || started.contains_key(&info.id()), "{span:?} has no start");
            assert_eq!(info.parent().is_none(), span.kind() == SpanKind::Call, "{span:?}");
            if let Some(parent) = info.parent() {
                let parent = by_id[&parent];
                let levels = u32::from(parent.kind() != SpanKind::Call);
                assert_eq!(info.depth(), parent.info().depth() + levels);
                assert_eq!(info.root(), parent.info().root());
                children.entry(parent.info().id()).or_default().push(span);
            }
            check_path(span);
        }
        for (parent, mut children) in children {
            let parent = by_id[&parent];
            children.retain(|child| {
                patient
                    || !child.result().is_err_and(|error| {
                        matches!(error.root_cause().reason(), Reason::Cancelled)
                    })
            });
            children.retain(|child| patient || child.ended() <= parent.ended());
            // The time during which at least one child was in progress.
            children.sort_by_key(|child| child.info().began());
            let (mut covered, mut end) = (Duration::ZERO, parent.info().began());
            for child in &children {
                assert!(child.info().began() >= parent.info().began(), "{child:?} in {parent:?}");
                assert!(child.ended() <= parent.ended(), "{child:?} in {parent:?}");
                covered += child.ended().saturating_sub(child.info().began().max(end));
                end = end.max(child.ended());
            }
            if patient {
                let nested = parent.phases().get(Phase::Nested);
                assert!(covered <= nested, "{covered:?} of children in {parent:?}: {children:?}");
                let count =
                    |kind| children.iter().filter(|child| child.kind() == kind).count() as u64;
                let usage = parent.usage();
                assert_eq!(
                    (usage.runs, usage.hits, usage.joins),
                    (count(SpanKind::Run), count(SpanKind::Hit), count(SpanKind::Join))
                );
            }
        }
    }
}

/// Asserts that the steps of the critical path of `span` add up to its time.
fn check_path(span: &Arc<Span>) {
    let path = CriticalPath::of(span);
    let sum: Duration = path.steps().iter().map(|step| step.own).sum();
    assert_eq!(sum, span.duration(), "the critical path of {span:?}");
}
