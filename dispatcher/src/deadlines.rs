//! The thread that stops root calls at their deadlines. It works with any tokio runtime, whether
//! timers are enabled or not.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Reason, Result, Status};
use parking_lot::{Condvar, Mutex};

use crate::scope::Scope;

/// The minimum time before a call is checked again. If a call's clock was paused, its deadline has
/// not passed yet when it is first checked.
const MIN_RECHECK: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Deadlines {
    calls: Mutex<Calls>,
    earlier: Condvar,
}

#[derive(Default)]
struct Calls {
    next: u64,
    due: BTreeSet<(Instant, u64)>,
    /// When the thread wakes up. It is notified only of earlier deadlines: notifying it of every
    /// call would cost a context switch each time.
    wakes_at: Option<Instant>,
    scopes: HashMap<u64, (Instant, Weak<Scope>)>,
}

/// Keeps a call registered with the thread until dropped.
pub(crate) struct Watched(u64);

/// Stops `scope` at its deadline, unless the returned guard is dropped before.
///
/// # Errors
/// [`Reason::RuntimeFailed`](crate::api::Reason::RuntimeFailed) if the thread cannot be started.
pub(crate) fn watch(scope: &Arc<Scope>) -> Result<Watched> {
    let deadlines = deadlines()?;
    let mut calls = deadlines.calls.lock();
    let number = calls.next;
    calls.next += 1;
    // A deadline that an `Instant` cannot represent never passes.
    if let Some(due) = Instant::now().checked_add(scope.time_left()) {
        calls.insert(number, due, Arc::downgrade(scope));
        if calls.wakes_at.is_none_or(|wakes_at| due < wakes_at) {
            deadlines.earlier.notify_one();
        }
    }
    Ok(Watched(number))
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Ok(deadlines) = deadlines() {
            deadlines.calls.lock().remove(self.0);
        }
    }
}

fn deadlines() -> Result<&'static Deadlines> {
    static DEADLINES: OnceLock<&'static Deadlines> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(deadlines) = DEADLINES.get() {
        return Ok(deadlines);
    }
    let _starting = STARTING.lock();
    if let Some(deadlines) = DEADLINES.get() {
        return Ok(deadlines);
    }
    let deadlines: &'static Deadlines = Box::leak(Box::default());
    let thread = std::thread::Builder::new().name("manifold-deadlines".to_owned());
    // A failure is not kept: a machine that is short of threads now may have some later.
    thread.spawn(|| deadlines.run()).map_err(|error| {
        Error::new(Reason::RuntimeFailed {
            problem: format!("cannot start the thread that watches deadlines: {error}"),
            status: Status::Transient,
        })
    })?;
    Ok(DEADLINES.get_or_init(|| deadlines))
}

impl Deadlines {
    fn run(&self) {
        let mut calls = self.calls.lock();
        loop {
            let now = Instant::now();
            match calls.due.first().copied() {
                None => {
                    calls.wakes_at = None;
                    self.earlier.wait(&mut calls);
                }
                Some((due, _)) if due > now => {
                    calls.wakes_at = Some(due);
                    self.earlier.wait_until(&mut calls, due);
                }
                Some((_, number)) => {
                    let Some(scope) = calls.remove(number).and_then(|scope| scope.upgrade()) else {
                        continue;
                    };
                    let left = scope.time_left();
                    if left.is_zero() {
                        scope.stop_at_deadline();
                    } else if let Some(due) = now.checked_add(left.max(MIN_RECHECK)) {
                        calls.insert(number, due, Arc::downgrade(&scope));
                    }
                }
            }
        }
    }
}

impl Calls {
    fn insert(&mut self, number: u64, due: Instant, scope: Weak<Scope>) {
        self.due.insert((due, number));
        self.scopes.insert(number, (due, scope));
    }

    fn remove(&mut self, number: u64) -> Option<Weak<Scope>> {
        let (due, scope) = self.scopes.remove(&number)?;
        self.due.remove(&(due, number));
        Some(scope)
    }
}
