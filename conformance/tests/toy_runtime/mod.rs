//! A small runtime for tests. A module is the name of a [`Program`], which is a Rust function.
//!
//! Guests call their host through a [`Session`]. They check their limits themselves, wherever they
//! compute or call their host.
#![allow(dead_code, reason = "not every test uses all of the toy runtime")]

mod flaw;
mod guests;
mod machine;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use manifold_conformance::{Module, ModuleFile, Program, RuntimeFixture};
use manifold_runtime_api::abi::Session;
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limit, Limits, ObjectId, ObjectKind,
    ObjectRef, Reason, Result, Runtime, async_trait,
};
use tokio::sync::Semaphore;

pub(crate) use flaw::Flaw;
use machine::{Machine, Running, Stop};

/// The name of the file in a module that is a tree.
const FILE: &str = "program";

/// The toy runtime.
pub(crate) struct Toy {
    host_image: HostImage,
    capabilities: Capabilities,
    flaw: Option<Flaw>,
    instance: usize,
    running: Arc<AtomicUsize>,
    slots: Semaphore,
    has_run: AtomicBool,
    is_broken: AtomicBool,
    missing: Mutex<HashSet<ObjectId>>,
}

impl Toy {
    fn new(capabilities: Capabilities, flaw: Option<Flaw>, instance: usize) -> Self {
        let mut image = HostImage::new("toy").with("version", 1);
        if flaw == Some(Flaw::HostImageOfEachInstance) {
            image = image.with("instance", instance);
        }
        Self {
            host_image: image.seal().unwrap(),
            capabilities,
            flaw,
            instance,
            running: Arc::default(),
            slots: Semaphore::new(8),
            has_run: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            missing: Mutex::default(),
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// Returns the program that `code` names.
    async fn load(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<Program> {
        if self.is(Flaw::RunsContainers) && code.module().is_none() {
            return Ok(Program::Echo);
        }
        let module = code.own_module()?;
        if self.missing.lock().unwrap().contains(&module.id) {
            return Err(Error::missing(module.id));
        }
        let text = match module.kind {
            kind if !self.capabilities.accepts(kind) => {
                return Err(Error::runtime(format!("a module cannot be a {kind}")));
            }
            ObjectKind::Blob => host.get(module.id).await,
            ObjectKind::Tree => self.read_tree(module, host).await,
        };
        let text = text.inspect_err(|_| {
            if self.is(Flaw::RemembersMissingModules) {
                self.missing.lock().unwrap().insert(module.id);
            }
        })?;
        let (found, bytes) = (text.len() as u64, limits.module_bytes);
        if found > bytes && !self.is(Flaw::UnlimitedModules) {
            return Err(Limit::Module { bytes, found }.into());
        }
        let program = Program::ALL.into_iter().find(|program| program.name().as_bytes() == text);
        match program {
            Some(program) => Ok(program),
            None if self.is(Flaw::WaitsForABadModule) => std::future::pending().await,
            None => Err(bad_module(module, "no program has this name")),
        }
    }

    async fn read_tree(
        &self,
        module: ObjectRef,
        host: &dyn Host,
    ) -> Result<manifold_runtime_api::bytes::Bytes> {
        let tree = host.tree(module.id).await?;
        let file = tree.get(FILE).ok_or_else(|| bad_module(module, "it has no file `program`"))?;
        host.get(file.id).await
    }

    async fn run_program(&self, program: Program, mut machine: Machine) -> Result<ObjectRef> {
        let detached = match self.flaw {
            Some(Flaw::DetachedWhileComputing) => program == Program::Spin,
            Some(Flaw::DetachedWhileWaiting) => program == Program::Relay,
            _ => false,
        };
        let run = async move {
            let guest = AssertUnwindSafe(guests::run(program, &mut machine)).catch_unwind().await;
            let end = match (guest, machine.flaw) {
                (Ok(end), _) => end,
                (Err(panic), Some(Flaw::PanicsEscape | Flaw::MissingArgumentsPanic)) => {
                    std::panic::resume_unwind(panic)
                }
                (Err(_), _) => Err(Stop::Trap("the guest panicked".to_owned())),
            };
            machine.finish(end).await
        };
        if detached { tokio::spawn(run).await.unwrap() } else { run.await }
    }
}

fn bad_module(module: ObjectRef, problem: &str) -> Error {
    Error::new(Reason::BadModule { module: module.id, problem: problem.to_owned() })
}

#[async_trait]
impl Runtime for Toy {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        if self.is(Flaw::CapabilitiesAfterAJob) && self.has_run.load(Ordering::SeqCst) {
            return self.capabilities.and_computes_only_when_polled();
        }
        self.capabilities
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.load(code, limits, host).await?;
        if self.is(Flaw::PreparingStores) {
            host.put_blob("prepared".into()).await?;
        }
        Ok(())
    }

    async fn run(&self, mut job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let _slot = match self.flaw {
            Some(Flaw::EightSlots) => Some(self.slots.acquire().await.unwrap()),
            _ => None,
        };
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(Error::runtime("this instance is broken"));
        }
        let program = self.load(&job.code, &job.limits, &*host).await?;
        if self.is(Flaw::UnlimitedResponses) {
            job.limits.response_bytes = u64::MAX;
        }
        if self.is(Flaw::UnlimitedLog) {
            job.limits.log_bytes = u64::MAX;
        }
        let running = Running::new(&self.running);
        if self.is(Flaw::NeighborsAreVisible) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let machine = Machine::new(Session::new(job, host), self.flaw, running, self.instance);
        let result = self.run_program(program, machine).await;
        self.has_run.store(true, Ordering::SeqCst);
        let breached = result.as_ref().is_err_and(|error| error.breached_limit().is_some());
        if breached && self.is(Flaw::BrokenByABreach) {
            self.is_broken.store(true, Ordering::SeqCst);
        }
        result
    }
}

/// Supplies toy runtimes and their modules.
pub(crate) struct ToyFixture {
    flaw: Option<Flaw>,
    has_trees: bool,
    instances: AtomicUsize,
}

impl ToyFixture {
    /// The toy runtime without flaws. Modules are blobs.
    pub(crate) fn new() -> Self {
        Self { flaw: None, has_trees: false, instances: AtomicUsize::new(0) }
    }

    /// The toy runtime without flaws. Modules are trees.
    pub(crate) fn with_trees() -> Self {
        Self { has_trees: true, ..Self::new() }
    }

    /// The toy runtime with a flaw.
    pub(crate) fn with_flaw(flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..Self::new() }
    }

    fn text(&self, text: &str) -> Module {
        if self.has_trees {
            let readme = ModuleFile::new("docs/readme", "a module of the toy runtime");
            Module::tree([ModuleFile::new(FILE, text.to_owned()), readme])
        } else {
            Module::blob(text.to_owned())
        }
    }
}

impl RuntimeFixture for ToyFixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let capabilities = Capabilities::blob_modules().and_fuel();
        let capabilities =
            if self.has_trees { capabilities.and_tree_modules() } else { capabilities };
        let instance = self.instances.fetch_add(1, Ordering::SeqCst);
        Arc::new(Toy::new(capabilities, self.flaw, instance))
    }

    fn module(&self, program: Program) -> Option<Module> {
        Some(self.text(program.name()))
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(self.text("no program"))
    }

    fn compute_time(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn memory_bytes(&self) -> u64 {
        8 << 20
    }

    fn patience(&self) -> Duration {
        // A check often has to wait for all of this time to find a flaw.
        Duration::from_secs(if self.flaw.is_some() { 4 } else { 30 })
    }
}
