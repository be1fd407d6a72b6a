//! [`Fiber`]: a function on a stack of its own, which can be suspended in the middle.
//!
//! A script calls a host function like any Rust function, and the interpreter cannot return while
//! it waits for the result. On a fiber it need not: [`suspend`] switches to the stack of the code
//! that resumed the fiber, and that thread goes on with other guests. A suspended guest is a stack
//! and the values on it. It holds no thread.
#![allow(unsafe_code, reason = "a host function finds its fiber by a pointer")]

use std::cell::Cell;
use std::ptr;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Error, Reason, Result, Status};

pub(crate) use corosensei::CoroutineResult as Step;

/// The size of a fiber's stack. It is reserved, and only the part that was ever used takes memory.
///
/// The bounds on nesting in `engine.rs` keep guests within it: a hostile guest that overflowed its
/// stack would end the process.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// Why a fiber is suspended.
#[derive(Debug)]
pub(crate) enum Request {
    /// The guest has computed for a while, or uses more memory than before. It goes on unless it
    /// has breached a limit.
    Pause,
    /// The guest waits for the result of an operation of its host.
    Operation(Operation),
}

/// What a fiber is resumed with. [`Answer::Done`] for a pause.
pub(crate) type Reply = Result<Answer>;

type Suspender = Yielder<Reply, Request>;

thread_local! {
    /// The fiber that runs on this thread, or null.
    static RUNNING: Cell<*const Suspender> = const { Cell::new(ptr::null()) };
}

/// A function on a stack of its own. Dropping it unwinds that stack.
///
/// A fiber cannot be sent to another thread, so the function may use values that cannot.
pub(crate) struct Fiber<T> {
    coroutine: Coroutine<Reply, Request, T>,
    /// Null until the fiber is first resumed.
    suspender: Rc<Cell<*const Suspender>>,
}

impl<T: 'static> Fiber<T> {
    /// Creates a fiber that will run `body`.
    pub(crate) fn new(body: impl FnOnce() -> T + 'static) -> Result<Self> {
        let suspender = Rc::new(Cell::new(ptr::null()));
        let own = Rc::clone(&suspender);
        let coroutine = Coroutine::with_stack(new_stack()?, move |yielder: &Suspender, _| {
            own.set(yielder);
            RUNNING.set(yielder);
            body()
        });
        Ok(Self { coroutine, suspender })
    }

    /// Runs the fiber until it is suspended or ends. The first reply is ignored.
    pub(crate) fn resume(&mut self, reply: Reply) -> Step<Request, T> {
        let _restore = Restore(RUNNING.replace(self.suspender.get()));
        self.coroutine.resume(reply)
    }
}

/// Makes the fiber that ran before the current one again, also if the fiber panics.
struct Restore(*const Suspender);

impl Drop for Restore {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// Suspends the fiber that calls this until it is resumed.
///
/// # Panics
/// Panics if the caller does not run on a fiber.
pub(crate) fn suspend(request: Request) -> Reply {
    let suspender = RUNNING.get();
    assert!(!suspender.is_null(), "a host function was called outside of a fiber");
    // SAFETY: `RUNNING` is not null only while `Fiber::resume` runs on this thread, and is then the
    // suspender of the fiber that it resumed, which is the caller's. It is valid until the body of
    // that fiber returns.
    unsafe { &*suspender }.suspend(request)
}

/// Runs `work` to its end on a stack of the same size.
pub(crate) fn on_large_stack<T>(work: impl FnOnce() -> T) -> Result<T> {
    Ok(corosensei::on_stack(new_stack()?, work))
}

fn new_stack() -> Result<DefaultStack> {
    DefaultStack::new(STACK_BYTES).map_err(|error| {
        let problem = format!("cannot allocate a stack of {STACK_BYTES} bytes: {error}");
        Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
    })
}
