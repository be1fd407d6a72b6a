//! The machine of a toy guest: its operations, and the limits on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifold_runtime_api::abi::{Answer, Operation, Session};
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    Call, EntryMode, Error, Limit, MemoryReservation, ObjectId, ObjectRef, Reason, Stopwatch, Tree,
    TreeEntry,
};

use super::flaw::Flaw;

/// Why a guest stops.
pub(crate) enum Stop {
    /// An operation of the host failed. The guest can catch this.
    Host(Error),
    /// The guest fails with a message of its own.
    Failed(String),
    /// The guest crashed.
    Trap(String),
    /// The guest breached a limit. It cannot catch this.
    Breach(Error),
}

impl From<Limit> for Stop {
    fn from(limit: Limit) -> Self {
        Self::Breach(limit.into())
    }
}

pub(crate) type Step<T = ()> = Result<T, Stop>;

/// The unit in which guests allocate memory, in bytes.
const PAGE: u64 = 64 << 10;

/// How many steps a guest computes before it checks its limits.
const STEPS: u64 = 1000;

/// Counts the guests of an instance that run.
pub(crate) struct Running(Arc<AtomicUsize>);

impl Running {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The machine of one guest.
pub(crate) struct Machine {
    pub(crate) session: Session,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) running: Running,
    /// The number of the runtime's instance.
    pub(crate) instance: usize,
    watch: Stopwatch,
    fuel: u64,
    memory: Vec<Vec<u8>>,
    reservation: Option<MemoryReservation>,
}

impl Machine {
    pub(crate) fn new(
        session: Session,
        flaw: Option<Flaw>,
        running: Running,
        instance: usize,
    ) -> Self {
        let limits = session.job().limits;
        let mut watch = Stopwatch::new(&limits);
        watch.start();
        let reservation = MemoryReservation::new(Arc::clone(&session.job().meter));
        let reservation = Some(reservation);
        Self { session, flaw, running, instance, watch, fuel: 0, memory: Vec::new(), reservation }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Uses fuel, and checks the limits on fuel and computing time.
    fn burn(&mut self, units: u64) -> Step {
        let job = self.session.job();
        self.fuel += units;
        let over = job.limits.fuel.filter(|bound| self.fuel > *bound);
        if let Some(units) = over.filter(|_| !self.is(Flaw::UnlimitedFuel)) {
            return Err(Limit::Fuel { units }.into());
        }
        if !self.is(Flaw::FuelIsNotCharged) {
            job.meter.burn(units)?;
        }
        if !self.is(Flaw::UnlimitedComputing) {
            self.watch.check()?;
        }
        Ok(())
    }

    /// Computes for a while.
    pub(crate) async fn compute(&mut self) -> Step {
        self.burn(STEPS)?;
        if self.is(Flaw::NeverYields) {
            // Stands for a loop that keeps its thread.
            std::thread::sleep(Duration::from_millis(1));
        } else {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Allocates a page of memory and keeps it.
    pub(crate) fn allocate(&mut self) -> Step {
        let bytes = self.session.job().limits.memory_bytes;
        if (self.memory.len() as u64 + 1) * PAGE > bytes {
            return Err(match self.flaw {
                Some(Flaw::MemoryIsATrap) => Stop::Trap("out of memory".to_owned()),
                _ => Limit::Memory { bytes }.into(),
            });
        }
        if let Some(reservation) = &mut self.reservation
            && self.flaw != Some(Flaw::MemoryIsNotCharged)
        {
            reservation.grow(PAGE)?;
        }
        self.memory.push(vec![1; PAGE as usize]);
        self.burn(STEPS)
    }

    /// Allocates memory until there is at least as much as this.
    pub(crate) async fn hold(&mut self, bytes: u64) -> Step {
        while (self.memory.len() as u64) * PAGE < bytes {
            self.allocate()?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Lets a guest that has breached a limit go on.
    pub(crate) fn forget_breach(&mut self) {
        self.memory.clear();
        self.watch = Stopwatch::new(&self.session.job().limits);
    }

    /// Performs an operation of the host.
    pub(crate) async fn call(&mut self, operation: Operation) -> Step<Answer> {
        self.burn(1)?;
        let request_bytes = self.session.job().limits.guest_request_bytes;
        if let Operation::PutBlob(content) = &operation
            && content.len() as u64 > request_bytes
            && !self.is(Flaw::UnlimitedRequests)
        {
            return Err(Limit::GuestRequest { bytes: request_bytes }.into());
        }
        if !self.is(Flaw::WaitingCounts) {
            self.watch.stop();
        }
        let result = self.session.operate(operation).await;
        self.watch.start();
        match result {
            _ if self.session.has_ended() => Err(Stop::Trap("the job has ended".to_owned())),
            Err(error) if self.is(Flaw::ErrorsEndTheJob) => Err(Stop::Breach(error)),
            Err(error) => Err(Stop::Host(error)),
            Ok(answer) => self.burn(0).map(|()| answer),
        }
    }

    pub(crate) async fn tree(&mut self, id: ObjectId) -> Step<Arc<Tree>> {
        match self.call(Operation::Tree(id)).await? {
            Answer::Tree(tree) => Ok(tree),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn get(&mut self, id: ObjectId) -> Step<Bytes> {
        match self.call(Operation::Get(id)).await? {
            Answer::Blob(content) => Ok(content),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn part(&mut self, id: ObjectId, offset: u64, length: u64) -> Step<Bytes> {
        let length = if self.is(Flaw::RangeIsTooLong) { length + 1 } else { length };
        match self.call(Operation::GetRange { id, offset, length }).await? {
            Answer::Blob(content) => Ok(content),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn size(&mut self, id: ObjectId) -> Step<u64> {
        match self.call(Operation::Size(id)).await? {
            Answer::Size(size) => Ok(size),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn put_blob(&mut self, content: impl Into<Bytes>) -> Step<ObjectRef> {
        let mut content = content.into();
        if self.is(Flaw::StoresPartOfABlob) && content.len() > 100 {
            content.truncate(content.len() - 1);
        }
        match self.call(Operation::PutBlob(content)).await? {
            Answer::Stored(id) => Ok(ObjectRef::blob(id)),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn put_tree(&mut self, entries: Vec<TreeEntry>) -> Step<ObjectRef> {
        match self.call(Operation::PutTree(entries)).await? {
            Answer::Stored(id) => Ok(ObjectRef::tree(id)),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn run(&mut self, image: &str, args: ObjectId) -> Step<ObjectRef> {
        let image = match self.flaw {
            Some(Flaw::TrimsImageReferences) => image.replace(' ', ""),
            _ => image.to_owned(),
        };
        match self.call(Operation::Run(Call { image, args })).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn run_many(&mut self, calls: Vec<Call>) -> Step<Vec<ObjectRef>> {
        let mut results = match self.call(Operation::RunMany(calls)).await? {
            Answer::Outcomes(results) => results,
            other => return Err(unexpected(&other)),
        };
        match self.flaw {
            Some(Flaw::ReversedResults) => results.reverse(),
            Some(Flaw::TenResults) => results.truncate(10),
            _ => {}
        }
        results.into_iter().collect::<Result<_, _>>().map_err(Stop::Host)
    }

    /// Names the outcome.
    pub(crate) async fn out(&mut self, outcome: ObjectRef) -> Step {
        let outcome = match self.flaw {
            Some(Flaw::OutcomeIsABlob) => ObjectRef::blob(outcome.id),
            _ => outcome,
        };
        self.call(Operation::Out(outcome)).await.map(drop)
    }

    /// Writes to the log.
    pub(crate) async fn log(&mut self, message: String) -> Step {
        if self.is(Flaw::NoLog) {
            return Ok(());
        }
        self.call(Operation::Log(message)).await.map(drop)
    }

    /// Reads the entry `name` of the arguments.
    pub(crate) async fn argument(&mut self, name: &str) -> Step<ObjectRef> {
        let args = self.tree(self.session.job().args).await?;
        let entry = args.get(name);
        if entry.is_none() && self.is(Flaw::MissingArgumentsPanic) {
            std::panic::resume_unwind(Box::new("a missing argument"));
        }
        let entry = entry.ok_or_else(|| Stop::Failed(format!("no argument `{name}`")))?;
        object_of(entry)
    }

    /// Reads a text argument.
    pub(crate) async fn text(&mut self, name: &str) -> Step<String> {
        let id = self.argument(name).await?.id;
        let content = self.get(id).await?;
        String::from_utf8(content.to_vec()).map_err(|_| Stop::Failed("not UTF-8".to_owned()))
    }

    /// Reads a text argument that is a number.
    pub(crate) async fn number(&mut self, name: &str) -> Step<u64> {
        let text = self.text(name).await?;
        text.parse().map_err(|_| Stop::Failed(format!("`{name}` is not a number: {text}")))
    }

    /// Ends the guest, and returns the result of its job.
    pub(crate) async fn finish(&mut self, end: Step) -> Result<ObjectRef, Error> {
        let end = match end {
            Ok(()) => Ok(()),
            Err(Stop::Breach(error)) => Err(error),
            Err(Stop::Trap(trap)) => Err(Error::new(Reason::Trapped { trap })),
            Err(Stop::Host(error)) => self.fail(error.to_string()).await,
            Err(Stop::Failed(message)) => self.fail(message).await,
        };
        if self.is(Flaw::MemoryIsNotGivenBack) {
            std::mem::forget(self.reservation.take());
        }
        let result = self.session.finish(end);
        match self.flaw {
            Some(Flaw::NoCauses) => result.map_err(|error| Error::new(error.reason().clone())),
            Some(Flaw::SilenceIsARuntimeFailure) => result.map_err(|error| match error.reason() {
                Reason::NoOutcome => Error::runtime("no outcome"),
                _ => error,
            }),
            _ => result,
        }
    }

    async fn fail(&mut self, message: String) -> Result<(), Error> {
        let message = match self.flaw {
            Some(Flaw::NoMessage) => "failed".to_owned(),
            _ => message,
        };
        self.session.operate(Operation::Fail(message)).await.map(drop)
    }
}

/// The object that an entry names.
pub(crate) fn object_of(entry: &TreeEntry) -> Step<ObjectRef> {
    match entry.mode.object_kind() {
        Some(kind) => Ok(ObjectRef { kind, id: entry.id }),
        None => Err(Stop::Failed(format!("{} is a submodule", entry.name))),
    }
}

/// An entry with the plain mode of its object.
pub(crate) fn entry(name: impl Into<Vec<u8>>, object: ObjectRef) -> TreeEntry {
    TreeEntry::new(name.into(), EntryMode::plain(object.kind), object.id)
}

fn unexpected(answer: &Answer) -> Stop {
    Stop::Trap(format!("an answer to another operation: {answer:?}"))
}
