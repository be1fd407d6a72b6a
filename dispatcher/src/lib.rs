#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

mod announcement;
mod budget;
mod builder;
mod by_id;
mod claim;
mod clock;
mod completion;
mod core;
mod deadlines;
mod dispatcher;
mod elsewhere;
mod flight;
mod frame;
#[cfg(feature = "functions")]
mod function;
mod held;
mod images;
mod input;
mod invocation;
pub mod layers;
mod lookup;
pub mod native;
mod note;
mod objects;
mod observe;
mod padded;
mod panic_message;
mod permits;
mod prepare;
mod progress;
mod provenance;
mod registry;
mod resolve;
mod rewind;
mod root_call;
mod run;
mod run_each;
mod running;
mod scope;
mod settle;
mod settled;
mod source;
mod span;
mod spending;
mod store;
mod suspension;
mod sync;
mod thread_number;
mod through;

pub use budget::Budget;
pub use builder::DispatcherBuilder;
pub use completion::Completion;
pub use dispatcher::Dispatcher;
pub use elsewhere::{Arrived, LongRun, LongRuns, Unit, WaitingRun};
#[cfg(feature = "functions")]
#[cfg_attr(docsrs, doc(cfg(feature = "functions")))]
pub use function::{CallError, Function};
pub use held::Held;
pub use input::Input;
pub use invocation::{Invocation, Policy};
pub use manifold_runtime_api as api;
pub use note::is_note;
pub use observe::{Event, Observed, Observer, Stats};
pub use progress::Progress;
pub use provenance::Provenance;
pub use source::ObjectSource;
#[cfg(feature = "git")]
#[cfg_attr(docsrs, doc(cfg(feature = "git")))]
pub use source::{Commit, GitObjects, History};
#[cfg(feature = "directory")]
#[cfg_attr(docsrs, doc(cfg(feature = "directory")))]
pub use source::{DirectoryError, DirectoryObjects, ScanOptions, ScanProgress};
pub use span::{
    CriticalPath, PathSpan, PathStep, Phase, Phases, Span, SpanId, SpanInfo, SpanKind, Usage,
};
pub use spending::Spent;
#[cfg(feature = "durable")]
#[cfg_attr(docsrs, doc(cfg(feature = "durable")))]
pub use store::{
    Collected, Damage, DurableStore, Keep, OpenError, StoreCommit, StoreOptions, StoreWait,
    VerifyReport,
};
pub use store::{MemoryStore, Pin, RunRecord, Store};
