//! The thread that ends calls whose time is over. It works inside any tokio runtime, with timers or without.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Result};
use parking_lot::{Condvar, Mutex};

use crate::scope::Scope;

/// A clock that stood still is looked at again after this time, at least.
const SHORTEST: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Deadlines {
    calls: Mutex<Calls>,
    earlier: Condvar,
}

#[derive(Default)]
struct Calls {
    next: u64,
    due: BTreeSet<(Instant, u64)>,
    /// When the thread wakes up by itself. It is woken for what is earlier only: calls that come and go would cost a switch each.
    wakes: Option<Instant>,
    scopes: HashMap<u64, (Instant, Weak<Scope>)>,
}

/// Keeps a call watched until it is dropped.
pub(crate) struct Watched(u64);

/// Has `scope` stopped when its deadline is over.
///
/// # Errors
/// `RuntimeFailed` when the thread cannot start.
pub(crate) fn watch(scope: &Arc<Scope>) -> Result<Watched> {
    let deadlines = deadlines()?;
    let mut calls = deadlines.calls.lock();
    let number = calls.next;
    calls.next += 1;
    // A deadline beyond the clock's end is none.
    if let Some(due) = Instant::now().checked_add(scope.rest()) {
        calls.insert(number, due, Arc::downgrade(scope));
        if calls.wakes.is_none_or(|wakes| due < wakes) {
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
    static DEADLINES: OnceLock<Option<&'static Deadlines>> = OnceLock::new();
    let started = DEADLINES.get_or_init(|| {
        let deadlines: &'static Deadlines = Box::leak(Box::default());
        let thread = std::thread::Builder::new().name("manifold-deadlines".to_owned());
        thread.spawn(|| deadlines.run()).is_ok().then_some(deadlines)
    });
    started.ok_or_else(|| Error::runtime("the thread that watches deadlines cannot start"))
}

impl Deadlines {
    fn run(&self) {
        let mut calls = self.calls.lock();
        loop {
            let now = Instant::now();
            match calls.due.first().copied() {
                None => {
                    calls.wakes = None;
                    self.earlier.wait(&mut calls);
                }
                Some((due, _)) if due > now => {
                    calls.wakes = Some(due);
                    self.earlier.wait_until(&mut calls, due);
                }
                Some((_, number)) => {
                    let Some(scope) = calls.remove(number).and_then(|scope| scope.upgrade()) else {
                        continue;
                    };
                    let rest = scope.rest();
                    if rest.is_zero() {
                        scope.stop_at_deadline();
                    } else if let Some(due) = now.checked_add(rest.max(SHORTEST)) {
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
