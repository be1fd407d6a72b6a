//! The wrappers of stores and runtimes, one by one and nested.

mod fixture;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::Fixture;
use manifold_dispatcher::api::{
    Capabilities, Host, HostImage, Job, Module, Object, ObjectId, ObjectKind, Outcome, Result,
    Runtime, Status, async_trait,
};
use manifold_dispatcher::layers::{Delayed, Faults, Faulty, Measured, Verified};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, ObjectSource, Store};

/// A source that answers other bytes than those it was asked for.
struct Liar;

impl ObjectSource for Liar {
    fn read(&self, _: ObjectId) -> Result<Option<Object>> {
        Ok(Some(Object::blob("something else")))
    }
}

fn greeting() -> NativeRuntime {
    NativeRuntime::builder("greeting", "1")
        .guest("greet", |guest| async move { guest.blob("hello").await })
        .build()
        .unwrap()
}

#[test]
fn a_verified_source_does_not_pass_on_what_is_damaged() {
    let wanted = Object::blob("what was asked for");
    let error = Verified::new(Liar).read(wanted.id()).unwrap_err();
    assert!(error.to_string().contains(&format!("object {} is damaged", wanted.id())), "{error}");

    let store = Verified::new(MemoryStore::new());
    assert_eq!(store.read(wanted.id()).unwrap(), None);
    let id = store.write(wanted.clone()).unwrap();
    assert_eq!(store.read(id).unwrap(), Some(wanted));
}

#[tokio::test]
async fn a_measured_store_and_runtime_count_what_they_do() {
    let store = Arc::new(Measured::new(MemoryStore::new()));
    let runtime = Arc::new(Measured::new(greeting()));
    let dispatcher =
        Dispatcher::builder().store(Arc::clone(&store) as _).runtime(Arc::clone(&runtime) as _);
    let dispatcher = dispatcher.build().unwrap();
    let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob("greet").unwrap() };
    let image = dispatcher.put_image(runtime.host_image().id(), module).unwrap();
    let invocation = Invocation::new(image, dispatcher.put_tree([]).unwrap());
    for _ in 0..3 {
        dispatcher.run(invocation.clone()).await.unwrap();
    }
    let measures = store.measures();
    assert_eq!((measures.remembered, measures.failures), (1, 0));
    assert!(measures.recalled >= 2 && measures.recalled < measures.recalls, "{measures:?}");
    assert!(measures.writes > 5 && measures.bytes_written > 100, "{measures:?}");
    assert!(measures.reads > measures.absent && measures.time > Duration::ZERO, "{measures:?}");
    assert_eq!((runtime.measures().jobs, runtime.measures().failures), (1, 0));

    let failing = Measured::new(Verified::new(Liar));
    assert!(failing.read(module.id).is_err());
    assert_eq!(failing.measures().failures, 1);
}

#[tokio::test]
async fn a_delayed_store_and_runtime_take_their_time() {
    const DELAY: Duration = Duration::from_millis(20);
    let store = Delayed::new(MemoryStore::new(), DELAY);
    let start = Instant::now();
    let id = store.write(Object::blob("slow")).unwrap();
    assert_eq!(store.kind(id).unwrap(), Some(ObjectKind::Blob));
    assert!(start.elapsed() >= 2 * DELAY);

    let runtime = Delayed::new(greeting(), DELAY);
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(Arc::new(runtime)).build().unwrap();
    let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob("greet").unwrap() };
    let image = dispatcher.put_image(host, module).unwrap();
    let args = dispatcher.put_tree([]).unwrap();
    let start = Instant::now();
    dispatcher.run(Invocation::new(image, args)).await.unwrap();
    assert!(start.elapsed() >= DELAY);
}

/// What happens to fifty objects under `faults`: whether each write succeeds, and what each of ten reads finds.
fn history(faults: Faults) -> Vec<(bool, Vec<Option<bool>>)> {
    let store = Faulty::new(MemoryStore::new(), faults);
    let objects = (0..50).map(|number: u32| {
        let object = Object::blob(number.to_string());
        let written = store.write(object.clone()).is_ok();
        let reads = (0..10).map(|_| store.read(object.id()).ok().map(|found| found.is_some()));
        (written, reads.collect())
    });
    objects.collect()
}

#[test]
fn faults_follow_from_the_seed_and_from_nothing_else() {
    let mut faults = Faults::seeded(7);
    assert!(
        history(faults)
            .iter()
            .all(|(written, reads)| *written && reads.iter().all(|read| *read == Some(true)))
    );

    (faults.loss, faults.failure, faults.partial_write) = (0.3, 0.1, 0.1);
    let seen = history(faults);
    assert_eq!(seen, history(faults));
    faults.seed = 8;
    assert_ne!(seen, history(faults));
    assert!(seen.iter().any(|(written, _)| !written), "some writes fail");
    let reads = || seen.iter().flat_map(|(_, reads)| reads);
    assert!(reads().any(Option::is_none), "some reads fail");
    assert!(reads().any(|read| *read == Some(false)), "some objects are lost");
}

#[test]
fn a_lost_object_is_back_once_it_is_written_again() {
    let mut faults = Faults::seeded(1);
    faults.loss = 1.0;
    let store = Faulty::new(MemoryStore::new(), faults);
    let object = Object::blob("here today");
    let id = store.write(object.clone()).unwrap();
    let reads = (0..10).map(|_| store.read(id).unwrap().is_some()).collect::<Vec<_>>();
    assert!(reads[0] && !reads[9], "{reads:?}");
    assert_eq!(store.losses(), 1);
    store.write(object).unwrap();
    assert!((0..10).all(|_| store.read(id).unwrap().is_some()), "one object is lost once");
}

#[test]
fn a_half_done_write_arrives_although_it_fails() {
    let mut faults = Faults::seeded(1);
    faults.partial_write = 1.0;
    let store = Faulty::new(MemoryStore::new(), faults);
    let object = Object::blob("half");
    let error = store.write(object.clone()).unwrap_err();
    assert_eq!(error.status(), Status::Transient);
    let outcome = Outcome::of(&object);
    assert!(
        store.remember(object.id(), outcome).is_err() && store.pin(object.id(), outcome).is_err()
    );
    assert_eq!(store.inner().read(object.id()).unwrap(), Some(object.clone()));
    assert_eq!(store.recall(object.id()).unwrap(), Some(outcome));
    assert_eq!(store.pinned(object.id()).unwrap(), Some(outcome));
}

#[tokio::test]
async fn a_faulty_runtime_fails_and_the_next_call_runs_afresh() {
    let mut faults = Faults::seeded(3);
    faults.failure = 0.5;
    let runtime = Faulty::new(greeting(), faults);
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(Arc::new(runtime)).build().unwrap();
    let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob("greet").unwrap() };
    let image = dispatcher.put_image(host, module).unwrap();
    let mut failures = 0;
    for number in 0..20 {
        let invocation =
            Invocation::new(image, dispatcher.put_tree([]).unwrap()).salt(number.to_string());
        while let Err(error) = dispatcher.run(invocation.clone()).await {
            assert_eq!(error.status(), Status::Transient, "{error:?}");
            failures += 1;
        }
    }
    assert!(failures > 5, "{failures} failures");
}

/// A runtime that is nothing but wrapped, to see that wrappers pass on who they are.
struct Plain(HostImage);

#[async_trait]
impl Runtime for Plain {
    fn host_image(&self) -> &HostImage {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_tree_modules().and_fuel()
    }

    async fn run(&self, _: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        Ok(Outcome::blob(host.put_blob("plain".into()).await?))
    }
}

#[test]
fn layers_nest_and_are_who_they_wrap() {
    let plain = Plain(HostImage::new("plain").with("version", 1).seal().unwrap());
    let id = plain.host_image().id();
    let runtime =
        Measured::new(Delayed::new(Faulty::new(plain, Faults::seeded(0)), Duration::ZERO));
    assert_eq!(runtime.host_image().id(), id);
    assert!(runtime.capabilities().tree_modules && runtime.capabilities().fuel);

    let store =
        Measured::new(Verified::new(Delayed::new(Arc::new(MemoryStore::new()), Duration::ZERO)));
    let fixture = Fixture::with(greeting(), |builder| builder.store(Arc::new(store)));
    let invocation = Invocation::new(fixture.image("greet"), fixture.args(&[]));
    let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let completion = executor.block_on(fixture.dispatcher.run(invocation)).unwrap();
    assert_eq!(fixture.text(completion.outcome), "hello");
    assert!(fixture.dispatcher.unpin(completion.request).unwrap());
}
