//! Numbers of threads, for data that each thread, or each of some groups of threads, has apart.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of groups.
pub(crate) const GROUPS: usize = 16;

/// Returns the number of this thread. Threads are numbered as they come.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or_default()
}

/// Returns the group of this thread, less than [`GROUPS`].
pub(crate) fn group() -> usize {
    thread_number() % GROUPS
}
