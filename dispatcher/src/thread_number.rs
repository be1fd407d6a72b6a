//! Data that threads have apart, so that they do not wait for each other's cache lines.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::padded::Padded;

/// Returns the number of this thread. Threads are numbered as they come.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or_default()
}

/// A value for each of `GROUPS` groups of threads.
pub(crate) struct ByThread<T, const GROUPS: usize>([Padded<T>; GROUPS]);

impl<T: Default, const GROUPS: usize> Default for ByThread<T, GROUPS> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

impl<T, const GROUPS: usize> ByThread<T, GROUPS> {
    /// Creates the value of each group.
    pub(crate) fn new(value: impl Fn(usize) -> T) -> Self {
        Self(std::array::from_fn(|group| Padded(value(group))))
    }

    /// Returns the value of this thread's group.
    pub(crate) fn own(&self) -> &T {
        &self.0[thread_number() % GROUPS].0
    }

    /// Returns the values of all groups.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|value| &value.0)
    }
}
