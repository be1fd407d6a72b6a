//! [`Gauge`]: what a guest uses. It counts operations, and estimates memory.
//!
//! rhai bounds the size of each value. How many of them a guest keeps it does not say, so the gauge
//! adds up the values of all variables from time to time. Values that no variable holds yet, such
//! as the parts of an expression, are not counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rhai::{Dynamic, EvalContext};

use crate::fiber::{self, Request};

/// What a value takes besides the bytes of its text, in bytes: an estimate.
const VALUE_BYTES: u64 = 48;

/// How deep arrays and object maps may be nested in each other. Values are copied, compared and
/// dropped by recursion, so a guest that nests them without end would overflow its stack.
const MAX_NESTING: u64 = 64;

/// Memory is reported in steps of this size, in bytes.
const STEP_BYTES: u64 = 64 << 10;

/// Maximum number of operations from one measurement to the next.
const MAX_INTERVAL: u64 = 64;

/// What a guest has used so far.
#[derive(Default)]
pub(crate) struct Gauge {
    operations: AtomicU64,
    bytes: AtomicU64,
    /// The number of operations at which memory is measured next.
    next: AtomicU64,
    /// The bytes of the variables in each function that has not returned yet.
    levels: Mutex<Vec<u64>>,
}

impl Gauge {
    /// Returns the number of operations.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Relaxed)
    }

    /// Returns an estimate of the memory, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn set_operations(&self, operations: u64) {
        self.operations.store(operations, Relaxed);
    }

    /// Measures the variables that `context` sees. Suspends the guest if the estimate has changed.
    ///
    /// This is called whenever the guest uses or defines a variable. It costs time for each value,
    /// so it does nothing if it has measured many values a short time ago.
    pub(crate) fn measure(&self, context: &EvalContext<'_, '_, '_, '_, '_, '_>) {
        let operations = self.operations();
        if operations < self.next.load(Relaxed) {
            return;
        }
        let mut sum = Sum::default();
        for (_, _, value) in context.scope().iter_raw() {
            sum.add(value, 0);
        }
        self.next.store(operations + (sum.values / 16).min(MAX_INTERVAL), Relaxed);
        let bytes = if sum.nesting > MAX_NESTING {
            // Over any limit: the guest is stopped.
            u64::MAX
        } else {
            let mut levels = self.levels.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            levels.resize(context.call_level() + 1, 0);
            levels[context.call_level()] = sum.bytes;
            levels.iter().sum::<u64>().next_multiple_of(STEP_BYTES)
        };
        if self.bytes.swap(bytes, Relaxed) != bytes {
            // The reply to a pause is of no interest.
            let _ = fiber::suspend(Request::Pause);
        }
    }
}

#[derive(Default)]
struct Sum {
    values: u64,
    bytes: u64,
    nesting: u64,
}

impl Sum {
    fn add(&mut self, value: &Dynamic, nesting: u64) {
        self.values += 1;
        self.bytes += VALUE_BYTES;
        self.nesting = self.nesting.max(nesting);
        if let Ok(text) = value.as_immutable_string_ref() {
            self.bytes += text.len() as u64;
        } else if let Ok(blob) = value.as_blob_ref() {
            self.bytes += blob.len() as u64;
        } else if let Ok(array) = value.as_array_ref() {
            array.iter().for_each(|value| self.add(value, nesting + 1));
        } else if let Ok(map) = value.as_map_ref() {
            for (name, value) in map.iter() {
                self.bytes += VALUE_BYTES + name.len() as u64;
                self.add(value, nesting + 1);
            }
        }
    }
}
