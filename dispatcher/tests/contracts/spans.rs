//! Spans of constructed calls: their phases, their critical paths, and what runtimes report.
//! `random_call_graphs.rs` checks the numbers of random ones.

use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{
    Call, Capabilities, Error, Host, HostImage, Job, JobPhase, ObjectId, ObjectRef, Report, Result,
    Runtime, async_trait,
};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime};
use manifold_dispatcher::{
    Budget, CriticalPath, Dispatcher, Invocation, Phase, Policy, Span, SpanKind,
};
use manifold_testing::Fixture;
use manifold_testing::spans::SpanJournal;

/// What a guest does, in this order: sleep, run all children at once, run a last child, sleep.
struct Work {
    name: &'static str,
    before: u64,
    children: &'static [&'static str],
    last: Option<&'static str>,
    after: u64,
}

const fn sleeps(name: &'static str, before: u64) -> Work {
    Work { name, before, children: &[], last: None, after: 0 }
}

/// The times are far enough apart for a busy machine.
const GRAPH: [Work; 6] = [
    Work { name: "root", before: 20, children: &["short", "long"], last: Some("last"), after: 30 },
    sleeps("short", 60),
    Work { name: "long", before: 10, children: &["inner"], last: None, after: 10 },
    sleeps("inner", 300),
    sleeps("last", 100),
    Work { name: "queue", before: 0, children: &["short", "last"], last: None, after: 0 },
];

async fn call(guest: &NativeGuest, name: &str) -> Result<Call> {
    Ok(Call { image: guest.text(name).await?, args: guest.job().args })
}

async fn work(guest: NativeGuest, work: &'static Work) -> Result<ObjectRef> {
    tokio::time::sleep(Duration::from_millis(work.before)).await;
    let mut calls = Vec::new();
    for child in work.children {
        calls.push(call(&guest, child).await?);
    }
    if !calls.is_empty() {
        guest.host().run_many(calls).await.into_iter().collect::<Result<Vec<_>>>()?;
    }
    if let Some(last) = work.last {
        guest.host().run(call(&guest, last).await?).await?;
    }
    tokio::time::sleep(Duration::from_millis(work.after)).await;
    guest.blob(work.name).await
}

/// A dispatcher with the guests of the graph, the images of all of them as arguments, and its spans.
fn graph(width: usize) -> (Fixture, ObjectId, Arc<SpanJournal>) {
    static WORK: [Work; 6] = GRAPH;
    let runtime = WORK.iter().fold(NativeRuntime::builder("graph", "1"), |builder, node| {
        builder.guest(node.name, move |guest| work(guest, node))
    });
    let journal = Arc::new(SpanJournal::default());
    let fixture = Fixture::with(runtime.build().unwrap(), |builder| {
        builder.permits(2).width(width).observer(Arc::clone(&journal))
    });
    let images: Vec<_> = GRAPH.iter().map(|node| (node.name, fixture.image(node.name))).collect();
    let images: Vec<_> = images.iter().map(|(name, image)| (*name, image.as_str())).collect();
    let args = fixture.args(&images);
    (fixture, args, journal)
}

/// The names of the guests on the critical path of the last root call, with their own times.
fn path(fixture: &Fixture, journal: &SpanJournal) -> Vec<(&'static str, Duration)> {
    let call = journal.spans().into_iter().rfind(|span| span.kind() == SpanKind::Call).unwrap();
    let steps = CriticalPath::of(&call);
    let named = steps.steps().iter().skip(1).map(|step| {
        let is_of = |node: &&Work| fixture.image(node.name) == step.span.info().image();
        (GRAPH.iter().find(is_of).unwrap().name, step.own)
    });
    named.collect()
}

#[tokio::test]
async fn the_critical_path_of_a_constructed_graph_is_the_known_one() {
    let (fixture, args, journal) = graph(16);
    fixture.dispatcher.run(Invocation::new(fixture.image("root")).args(args)).await.unwrap();
    journal.check(fixture.dispatcher.stats(), true, false);
    let path = path(&fixture, &journal);
    let names: Vec<_> = path.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["root", "last", "long", "inner"], "`short` delays nothing");
    for ((name, own), at_least) in path.iter().zip([50, 100, 20, 300]) {
        assert!(*own >= Duration::from_millis(at_least), "{name}: {own:?}");
    }
}

#[tokio::test]
async fn children_that_take_turns_are_all_on_the_critical_path() {
    let (fixture, args, journal) = graph(1);
    fixture.dispatcher.run(Invocation::new(fixture.image("queue")).args(args)).await.unwrap();
    let names: Vec<_> = path(&fixture, &journal).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["queue", "last", "short"]);
}

#[tokio::test]
async fn a_caller_that_joins_waits_for_the_run_of_the_other() {
    let (fixture, args, journal) = graph(16);
    let run = || fixture.dispatcher.run(Invocation::new(fixture.image("short")).args(args));
    let (first, second) = tokio::join!(run(), run());
    assert_eq!(first.unwrap().outcome, second.unwrap().outcome);
    run().await.unwrap();
    journal.check(fixture.dispatcher.stats(), true, false);
    let spans = journal.spans();
    let of = |kind| spans.iter().find(|span| span.kind() == kind).unwrap();
    let (run, join) = (of(SpanKind::Run), of(SpanKind::Join));
    assert_eq!(join.last().unwrap().info().id(), run.info().id());
    assert!(join.phases().get(Phase::Wait) >= Duration::from_millis(50), "{join:?}");
    assert!(run.is_memoized() && !join.is_memoized());
    let hit = of(SpanKind::Hit);
    assert_eq!(hit.result().unwrap(), run.result().unwrap());
    assert_eq!(hit.phases().get(Phase::Compute), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_add_up_when_calls_are_cut_short() {
    let (fixture, args, journal) = graph(16);
    let call =
        |name: &str| Invocation::new(fixture.image(name)).args(args).policy(Policy::Recompute);
    let cut = Budget::new().deadline(Duration::from_millis(60));
    fixture.dispatcher.run(call("root").budget(cut)).await.unwrap_err();
    fixture.dispatcher.run(call("root").salt("a").budget(Budget::new().runs(2))).await.unwrap_err();
    fixture
        .dispatcher
        .run(call("root").salt("b").budget(Budget::new().depth(1)))
        .await
        .unwrap_err();
    let late = fixture.dispatcher.run(call("root").salt("c"));
    assert!(tokio::time::timeout(Duration::from_millis(60), late).await.is_err());
    journal.wait();
    journal.check(fixture.dispatcher.stats(), false, false);
    let spans = journal.spans();
    let calls: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Call).collect();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|span| span.result().is_err()));
    // The run that was two levels too deep never started.
    let unstarted = |span: &&Arc<Span>| span.kind() == SpanKind::Unstarted;
    let unstarted = spans.iter().find(|span| unstarted(span) && span.info().depth() == 2).unwrap();
    let error = unstarted.result().unwrap_err();
    assert!(error.breached_limit().is_some(), "{error:?}");
}

/// A runtime whose guest only reports.
struct Reporting(HostImage);

#[async_trait]
impl Runtime for Reporting {
    fn host_image(&self) -> &HostImage {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules()
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        for (phase, millis) in [
            (JobPhase::Queue, 20),
            (JobPhase::Prepare, 30),
            (JobPhase::Start, 40),
            (JobPhase::Compute, 50),
        ] {
            host.report(Report::Phase(phase));
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        for bytes in [7, 9, 8] {
            host.report(Report::PeakMemory(bytes));
        }
        host.report(Report::Fuel(2));
        host.report(Report::Fuel(3));
        let module = host.get(job.code.own_module()?.id).await?;
        host.tree(job.args).await?;
        if module.is_empty() {
            return Err(Error::guest_failed("an empty module"));
        }
        Ok(ObjectRef::blob(host.put_blob("four bytes and more".into()).await?))
    }
}

#[tokio::test]
async fn a_runtime_reports_its_phases_and_what_its_guest_used() {
    let journal = Arc::new(SpanJournal::default());
    let dispatcher = Dispatcher::builder().observer(Arc::clone(&journal)).build().unwrap();
    let runtime = Reporting(HostImage::new("reporting").with("version", 1).seal().unwrap());
    let host = dispatcher.add_runtime(runtime).unwrap();
    let image = dispatcher.install(host, "a module").unwrap();
    dispatcher.run(Invocation::new(image)).await.unwrap();
    let spans = journal.spans();
    let run = spans.iter().find(|span| span.kind() == SpanKind::Run).unwrap();
    for (phase, millis) in
        [(Phase::Queue, 20), (Phase::Prepare, 30), (Phase::Start, 40), (Phase::Compute, 50)]
    {
        let time = run.phases().get(phase);
        assert!(time >= Duration::from_millis(millis), "{phase:?}: {time:?}");
    }
    assert!(run.phases().get(Phase::Host) > Duration::ZERO);
    let usage = run.usage();
    assert_eq!((usage.memory_bytes, usage.fuel), (Some(9), Some(5)));
    assert_eq!((usage.read_bytes, usage.written_bytes), (8, 19), "the tree of arguments is empty");
    assert_eq!((run.info().runtime(), run.info().image()), ("reporting", &*image.to_string()));
}
