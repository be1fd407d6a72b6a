//! [`Setup`]: a runtime and a test host, and how the checks run jobs on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use manifold_runtime_api::{
    Code, EntryMode, Error, Host, Job, Limit, Limits, Object, ObjectRef, Reason, Result, Runtime,
    TestHost, Tree, TreeEntry,
};
use tokio::task::JoinHandle;

use super::RuntimeFixture;
use super::spy::SpyHost;
use crate::check::{Step, ensure, short, skip, violation};
use crate::module::Module;
use crate::program::Program;

/// How often a check looks whether something has happened.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// One instance of a fixture's runtime, and the objects and images that its guests find.
pub(super) struct Setup {
    pub(super) fixture: Arc<dyn RuntimeFixture>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) host: TestHost,
    /// The error with which the host refuses to store objects.
    pub(super) refusal: Option<Error>,
}

impl Setup {
    /// Creates an instance of the runtime, with a host that has no images.
    pub(super) fn new(fixture: Arc<dyn RuntimeFixture>) -> Self {
        Self::with_host(fixture, TestHost::new())
    }

    /// Creates an instance of the runtime.
    pub(super) fn with_host(fixture: Arc<dyn RuntimeFixture>, host: TestHost) -> Self {
        Self { runtime: fixture.runtime(), fixture, host, refusal: None }
    }

    /// Returns the fixture's module for `program`, or skips the check.
    pub(super) fn module(&self, program: Program) -> Step<Module> {
        match self.fixture.module(program) {
            Some(module) => Ok(module),
            None => skip(format!("the fixture has no module for Program::{program:?}")),
        }
    }

    /// Stores a module in the host.
    pub(super) fn store(&self, module: &Module) -> Step<Code> {
        let stored = module.write(&mut |object| Ok(self.host.put(object)));
        stored
            .map(Code::Module)
            .map_err(|error| violation("a module that is a valid tree", short(&error)))
    }

    /// Stores the fixture's module for `program` in the host, or skips the check.
    pub(super) fn code(&self, program: Program) -> Step<Code> {
        self.store(&self.module(program)?)
    }

    /// Stores a blob in the host.
    pub(super) fn blob(&self, content: impl Into<Vec<u8>>) -> ObjectRef {
        ObjectRef::blob(self.host.put_blob(content.into()))
    }

    /// Stores a tree in the host.
    pub(super) fn tree(&self, entries: &[(&str, ObjectRef)]) -> Step<ObjectRef> {
        let entries = entries
            .iter()
            .map(|(name, object)| TreeEntry::new(*name, EntryMode::plain(object.kind), object.id));
        match Tree::new(entries) {
            Ok(tree) => Ok(ObjectRef::tree(self.host.put(tree.to_object()))),
            Err(error) => Err(violation("a valid tree of the check", short(&error))),
        }
    }

    /// Creates the job of a program, or skips the check.
    pub(super) fn job(&self, program: Program, args: &[(&str, ObjectRef)]) -> Step<Job> {
        let code = self.code(program)?;
        let job = self.host.job(code, args.iter().copied());
        job.map_err(|error| violation("a valid tree of arguments", short(&error)))
    }

    /// Starts a job in a task of its own.
    pub(super) fn start(&self, job: Job) -> Running {
        let has_read_args = Arc::new(AtomicBool::new(false));
        let spy = SpyHost::new(
            self.host.clone(),
            job.args,
            Arc::clone(&has_read_args),
            self.refusal.clone(),
        );
        let host: Arc<dyn Host> = Arc::new(spy);
        let released = Arc::downgrade(&host);
        let runtime = Arc::clone(&self.runtime);
        let task = tokio::spawn(async move { runtime.run(job, host).await });
        Running { task, host: released, has_read_args, patience: self.fixture.patience() }
    }

    /// Runs a job, and returns its result.
    pub(super) async fn run(&self, job: Job) -> Step<Result<ObjectRef>> {
        self.start(job).end().await
    }

    /// Runs a job that has to succeed, and returns its outcome and the outcome's object.
    pub(super) async fn outcome(&self, what: &str, job: Job) -> Step<(ObjectRef, Object)> {
        let outcome = self
            .run(job)
            .await?
            .map_err(|error| violation(format!("{what} to succeed"), short(&error)))?;
        self.object(what, outcome)
    }

    /// Reads the object of an outcome from the host.
    pub(super) fn object(&self, what: &str, outcome: ObjectRef) -> Step<(ObjectRef, Object)> {
        let object = self.host.read(outcome.id).map_err(|error| {
            violation(format!("the outcome of {what} to be an object of the host"), short(&error))
        })?;
        ensure(
            object.kind == outcome.kind,
            format!("the outcome of {what} to have the kind of its object, {}", object.kind),
            || format!("a {}", outcome.kind),
        )?;
        Ok((outcome, object))
    }

    /// Runs a job whose outcome has to be a blob, and returns the blob's text.
    pub(super) async fn text(&self, what: &str, job: Job) -> Step<String> {
        let (_, object) = self.outcome(what, job).await?;
        Ok(String::from_utf8_lossy(&object.content).into_owned())
    }

    /// Runs a job that has to fail, and returns its error.
    pub(super) async fn error(&self, what: &str, job: Job) -> Step<Error> {
        match self.run(job).await? {
            Err(error) => Ok(error),
            Ok(outcome) => Err(violation(format!("{what} to fail"), short(&outcome))),
        }
    }

    /// Runs a job that has to breach a limit, and returns the limit.
    pub(super) async fn breach(&self, what: &str, job: Job) -> Step<Limit> {
        let error = self.error(what, job).await?;
        breach(what, &error)
    }

    /// Runs `Echo`, which shows that the runtime still works. `after` says what has happened.
    pub(super) async fn echo(&self, after: &str) -> Step {
        let what = format!("Program::Echo after {after}");
        let input = self.blob("hello");
        let (outcome, _) = self.outcome(&what, self.job(Program::Echo, &[("in", input)])?).await?;
        ensure(outcome == input, format!("{what} to return its argument"), || short(&outcome))
    }

    /// Returns limits that stop no guest while a check waits for something else.
    pub(super) fn patient_limits(&self) -> Limits {
        Limits::default().compute_time(self.fixture.patience() * 4)
    }
}

/// Returns the limit that `error` reports as breached.
pub(super) fn breach(what: &str, error: &Error) -> Step<Limit> {
    match error.reason() {
        Reason::LimitBreached(limit) => Ok(*limit),
        _ => Err(violation(format!("{what} to end with Reason::LimitBreached"), short(error))),
    }
}

/// A job in a task of its own. Dropping this value drops the job's future.
pub(super) struct Running {
    task: JoinHandle<Result<ObjectRef>>,
    host: Weak<dyn Host>,
    has_read_args: Arc<AtomicBool>,
    patience: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Waits for the job's end, and returns its result.
    pub(super) async fn end(mut self) -> Step<Result<ObjectRef>> {
        let expected = || format!("the job to end within {:?}", self.patience);
        match tokio::time::timeout(self.patience, &mut self.task).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(panic)) => Err(violation(
                "`Runtime::run` to return an error and not to panic",
                panic.to_string(),
            )),
            Err(_) => Err(violation(expected(), "it still runs")),
        }
    }

    /// Returns whether the job has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the guest has read the tree of its arguments, or for a second: the runtime may
    /// have read that tree for it.
    pub(super) async fn started(&self) {
        let start = Instant::now();
        while !self.has_read_args.load(Ordering::SeqCst)
            && start.elapsed() < Duration::from_secs(1)
            && !self.has_ended()
        {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Drops the job's future, and waits until nothing holds the job's host any more.
    pub(super) async fn cancel(self, what: &str) -> Step {
        ensure(!self.has_ended(), format!("{what} to run until its future is dropped"), || {
            "it has ended".to_owned()
        })?;
        let (host, patience) = (Weak::clone(&self.host), self.patience);
        drop(self);
        let released = wait_until(patience, || host.strong_count() == 0).await;
        ensure(
            released,
            format!("{what} to release its host within {patience:?} after its future was dropped"),
            || "the host is still in use".to_owned(),
        )
    }
}

/// Waits until `condition` holds. Returns whether that was within `patience`.
pub(super) async fn wait_until(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}
