//! The layers of stores and runtimes, one by one and nested.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::{
    Capabilities, Host, HostImage, Job, Object, ObjectId, ObjectKind, ObjectRef, Result, Runtime,
    Status, async_trait,
};
use manifold_dispatcher::layers::{Delayed, Faults, Faulty, Measured, Verified};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, ObjectSource, Store};
use manifold_testing::Fixture;

/// A source that returns the same object for every id.
struct WrongBytes;

impl ObjectSource for WrongBytes {
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
fn verified_rejects_a_damaged_object() {
    let wanted = Object::blob("the requested object");
    let error = Verified::new(WrongBytes).read(wanted.id()).unwrap_err();
    assert!(error.to_string().contains(&format!("object {} is damaged", wanted.id())), "{error}");

    let store = Verified::new(MemoryStore::new());
    assert_eq!(store.read(wanted.id()).unwrap(), None);
    let id = store.write(wanted.clone()).unwrap();
    assert_eq!(store.read(id).unwrap(), Some(wanted));
}

#[tokio::test]
async fn measured_counts_the_operations_of_a_store_and_a_runtime() {
    let store = Arc::new(Measured::new(MemoryStore::new()));
    let runtime = Arc::new(Measured::new(greeting()));
    let dispatcher = Dispatcher::builder().store(Arc::clone(&store)).runtime(Arc::clone(&runtime));
    let dispatcher = dispatcher.build().unwrap();
    let module = ObjectRef::blob(dispatcher.put_blob("greet").unwrap());
    let image = dispatcher.put_image(runtime.host_image().id(), module).unwrap();
    let invocation = Invocation::new(image).args(dispatcher.put_tree([]).unwrap());
    for _ in 0..3 {
        dispatcher.run(invocation.clone()).await.unwrap();
    }
    let measures = store.measures();
    assert_eq!((measures.records, measures.failures), (1, 0));
    assert!(measures.found >= 2 && measures.found < measures.look_ups, "{measures:?}");
    assert!(measures.writes > 5 && measures.bytes_written > 100, "{measures:?}");
    assert!(measures.reads > measures.absent && measures.time > Duration::ZERO, "{measures:?}");
    assert_eq!((runtime.measures().jobs, runtime.measures().failures), (1, 0));

    let failing = Measured::new(Verified::new(WrongBytes));
    assert!(failing.read(module.id).is_err());
    assert_eq!(failing.measures().failures, 1);
}

#[tokio::test]
async fn delayed_delays_a_store_and_a_runtime() {
    const DELAY: Duration = Duration::from_millis(20);
    let store = Delayed::new(MemoryStore::new(), DELAY);
    let start = Instant::now();
    let id = store.write(Object::blob("slow")).unwrap();
    assert_eq!(store.kind(id).unwrap(), Some(ObjectKind::Blob));
    assert!(start.elapsed() >= 2 * DELAY);

    let runtime = Delayed::new(greeting(), DELAY);
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(runtime).build().unwrap();
    let module = ObjectRef::blob(dispatcher.put_blob("greet").unwrap());
    let image = dispatcher.put_image(host, module).unwrap();
    let args = dispatcher.put_tree([]).unwrap();
    let start = Instant::now();
    dispatcher.run(Invocation::new(image).args(args)).await.unwrap();
    assert!(start.elapsed() >= DELAY);
}

/// Writes fifty objects under `faults` and reads each ten times. Returns whether each write
/// succeeded, and for each read whether it found the object, or `None` if it failed.
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
fn faults_depend_on_the_seed_only() {
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
fn a_lost_object_can_be_read_after_it_is_written_again() {
    let mut faults = Faults::seeded(1);
    faults.loss = 1.0;
    let store = Faulty::new(MemoryStore::new(), faults);
    let object = Object::blob("here today");
    let id = store.write(object.clone()).unwrap();
    let reads = (0..10).map(|_| store.read(id).unwrap().is_some()).collect::<Vec<_>>();
    assert!(reads[0] && !reads[9], "{reads:?}");
    assert_eq!(store.losses(), 1);
    store.write(object).unwrap();
    assert!((0..10).all(|_| store.read(id).unwrap().is_some()), "an object is lost only once");
}

#[test]
fn a_partial_write_fails_although_the_data_is_stored() {
    let mut faults = Faults::seeded(1);
    faults.partial_write = 1.0;
    let store = Faulty::new(MemoryStore::new(), faults);
    let object = Object::blob("half");
    let error = store.write(object.clone()).unwrap_err();
    assert_eq!(error.status(), Status::Transient);
    let outcome = ObjectRef::of(&object);
    assert!(
        store.record(object.id(), outcome).is_err() && store.pin(object.id(), outcome).is_err()
    );
    assert_eq!(store.inner().read(object.id()).unwrap(), Some(object.clone()));
    assert_eq!(store.look_up(object.id()).unwrap(), Some(outcome));
    assert_eq!(store.pinned(object.id()).unwrap(), Some(outcome));
}

#[tokio::test]
async fn after_an_injected_failure_the_next_call_runs_the_job_again() {
    let mut faults = Faults::seeded(3);
    faults.failure = 0.5;
    let runtime = Faulty::new(greeting(), faults);
    let host = runtime.host_image().id();
    let dispatcher = Dispatcher::builder().runtime(runtime).build().unwrap();
    let module = ObjectRef::blob(dispatcher.put_blob("greet").unwrap());
    let image = dispatcher.put_image(host, module).unwrap();
    let mut failures = 0;
    for number in 0..20 {
        let invocation =
            Invocation::new(image).args(dispatcher.put_tree([]).unwrap()).salt(number.to_string());
        while let Err(error) = dispatcher.run(invocation.clone()).await {
            assert_eq!(error.status(), Status::Transient, "{error:?}");
            failures += 1;
        }
    }
    assert!(failures > 5, "{failures} failures");
}

/// A runtime with capabilities that differ from the defaults, to check that layers forward them.
struct Plain(HostImage);

#[async_trait]
impl Runtime for Plain {
    fn host_image(&self) -> &HostImage {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_tree_modules().and_fuel()
    }

    async fn run(&self, _: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        Ok(ObjectRef::blob(host.put_blob("plain".into()).await?))
    }
}

#[test]
fn nested_layers_keep_the_host_image_and_capabilities() {
    let plain = Plain(HostImage::new("plain").with("version", 1).seal().unwrap());
    let id = plain.host_image().id();
    let runtime =
        Measured::new(Delayed::new(Faulty::new(plain, Faults::seeded(0)), Duration::ZERO));
    assert_eq!(runtime.host_image().id(), id);
    assert!(runtime.capabilities().tree_modules && runtime.capabilities().fuel);

    let store =
        Measured::new(Verified::new(Delayed::new(Arc::new(MemoryStore::new()), Duration::ZERO)));
    let fixture = Fixture::with(greeting(), |builder| builder.store(store));
    let invocation = Invocation::new(fixture.image("greet")).args(fixture.args(&[]));
    let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let completion = executor.block_on(fixture.dispatcher.run(invocation)).unwrap();
    assert_eq!(fixture.text(completion.outcome), "hello");
    assert!(fixture.dispatcher.unpin(completion.request).unwrap());
}
