//! Jobs that wait for their hosts take nothing that other jobs need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, Store};
use manifold_runtime_api::{
    Call, EntryMode, Limits, Object, ObjectId, ObjectRef, Result, Runtime, TestHost, Tree,
    TreeEntry,
};
use tokio::sync::Semaphore;

use super::RuntimeFixture;
use super::setup::{Setup, wait_until};
use crate::check::{Step, ensure, ensure_eq, short, skip, violation};
use crate::program::Program;

/// An image whose runs wait until they are released.
#[derive(Clone)]
pub(super) struct Gate {
    arrived: Arc<AtomicUsize>,
    released: Arc<Semaphore>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { arrived: Arc::default(), released: Arc::new(Semaphore::new(0)) }
    }

    /// The reference of the image.
    pub(super) const REFERENCE: &str = "gate";

    /// Returns a host with the image. The outcome of a run is the tree of its arguments.
    pub(super) fn host(&self) -> TestHost {
        let gate = self.clone();
        TestHost::new().image(Self::REFERENCE, move |call: Call| {
            let gate = gate.clone();
            async move {
                gate.arrived.fetch_add(1, Ordering::SeqCst);
                // The semaphore has no permits: this waits until it is closed.
                let _ = gate.released.acquire().await;
                Ok(ObjectRef::tree(call.args))
            }
        })
    }

    /// Returns how many runs have begun.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Releases all runs, and those that will begin.
    pub(super) fn open(&self) {
        self.released.close();
    }
}

/// > Any number of jobs may run concurrently. A job that waits for its host holds no OS thread and
/// > no slot that another job needs, so a guest may call itself to any depth.
///
/// Starts [`RuntimeFixture::waiting_jobs`] jobs of `Program::Relay`. All of them have to wait at
/// once, and another job has to run beside them.
pub(super) async fn many_jobs_wait_at_once(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let gate = Gate::new();
    let setup = Setup::with_host(fixture, gate.host());
    let count = setup.fixture.waiting_jobs();
    let args = setup.tree(&[])?;
    let image = setup.blob(Gate::REFERENCE);
    let jobs: Vec<_> = (0..count)
        .map(|_| Ok(setup.start(setup.job(Program::Relay, &[("image", image), ("in", args)])?)))
        .collect::<Step<_>>()?;
    let patience = setup.fixture.patience();
    ensure(
        wait_until(patience, || gate.arrived() == count).await,
        format!("{count} jobs to wait for their hosts at once, within {patience:?}"),
        || format!("{} jobs", gate.arrived()),
    )?;
    setup.echo(&format!("{count} other jobs began to wait")).await?;
    gate.open();
    for job in jobs {
        let outcome = job.end().await?;
        let outcome = outcome
            .map_err(|error| violation("jobs that waited at once to succeed", short(&error)))?;
        ensure_eq("the outcome of a job that waited", outcome, args)?;
    }
    Ok(())
}

/// A dispatcher with the fixture's runtime, which may run one frame at a time.
struct Nested {
    dispatcher: Dispatcher,
    store: Arc<MemoryStore>,
    host: ObjectId,
    fixture: Arc<dyn RuntimeFixture>,
}

impl Nested {
    fn new(fixture: Arc<dyn RuntimeFixture>) -> Step<Self> {
        let runtime = fixture.runtime();
        let host = runtime.host_image().id();
        let store = Arc::new(MemoryStore::new());
        let limits = Limits::default().compute_time(fixture.patience() * 4);
        let built = Dispatcher::builder()
            .store(Arc::clone(&store))
            .runtime(runtime)
            .limits(limits)
            .permits(1)
            .build();
        let dispatcher = built
            .map_err(|error| violation("a dispatcher to accept the runtime", short(&error)))?;
        Ok(Self { dispatcher, store, host, fixture })
    }

    /// Stores the image of a program, or skips the check.
    fn image(&self, program: Program) -> Step<ObjectId> {
        let Some(module) = self.fixture.module(program) else {
            return skip(format!("the fixture has no module for Program::{program:?}"));
        };
        let image = module
            .write(&mut |object| self.store.write(object))
            .and_then(|module| self.dispatcher.put_image(self.host, module));
        image.map_err(|error| violation(format!("an image of {program}"), short(&error)))
    }

    /// Runs an image on a tree of arguments, and returns the outcome.
    async fn run(&self, what: &str, image: ObjectId, args: Result<ObjectId>) -> Step<ObjectRef> {
        let args = args.map_err(|error| violation("arguments to be stored", short(&error)))?;
        let patience = self.fixture.patience();
        let run = self.dispatcher.run(Invocation::new(image).args(args));
        match tokio::time::timeout(patience, run).await {
            Ok(Ok(completion)) => Ok(completion.outcome),
            Ok(Err(error)) => Err(violation(format!("{what} to succeed"), short(&error))),
            Err(_) => Err(violation(format!("{what} to end within {patience:?}"), "it still runs")),
        }
    }

    fn tree(&self, entries: Vec<(&str, Object)>) -> Result<ObjectId> {
        let entries = entries.into_iter().map(|(name, object)| {
            let mode = EntryMode::plain(object.kind);
            Ok(TreeEntry::new(name, mode, self.store.write(object)?))
        });
        self.store.write(Tree::new(entries.collect::<Result<Vec<_>>>()?)?.to_object())
    }
}

/// > Any number of jobs may run concurrently. A job that waits for its host holds no OS thread and
/// > no slot that another job needs, so a guest may call itself to any depth.
///
/// `Program::Recurse` calls itself [`RuntimeFixture::recursion_depth`] times through a dispatcher
/// that lets one frame compute at a time.
pub(super) async fn a_guest_calls_itself_to_any_depth(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let nested = Nested::new(fixture)?;
    let image = nested.image(Program::Recurse)?;
    let depth = nested.fixture.recursion_depth();
    let args = nested.tree(vec![("depth", Object::blob(depth.to_string()))]);
    let what = format!("Program::Recurse to depth {depth} with one run permit");
    let outcome = nested.run(&what, image, args).await?;
    let expected = ObjectRef::blob(Object::blob("0").id());
    ensure_eq("the outcome of Program::Recurse", outcome, expected)
}

/// > Runs many images, a bounded number at a time, and returns the results in the order of `calls`.
///
/// `Program::FanOut` runs `Program::Echo` for each of 40 entries through a dispatcher that lets one
/// frame compute at a time. The outcome is the tree itself.
pub(super) async fn a_guest_runs_many_through_a_dispatcher(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let nested = Nested::new(fixture)?;
    let (fan_out, echo) = (nested.image(Program::FanOut)?, nested.image(Program::Echo)?);
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    let blobs = names.iter().map(|name| (name.as_str(), Object::blob(format!("content {name}"))));
    let input = nested.tree(blobs.collect()).and_then(|id| nested.dispatcher.read(id));
    let args = input.as_ref().map_err(Clone::clone).and_then(|input| {
        nested.tree(vec![("image", Object::blob(echo.to_string())), ("in", input.clone())])
    });
    let outcome = nested.run("Program::FanOut of Program::Echo", fan_out, args).await?;
    let expected = input.map(|input| ObjectRef::of(&input));
    ensure_eq("the outcome of Program::FanOut of Program::Echo", Some(outcome), expected.ok())
}
