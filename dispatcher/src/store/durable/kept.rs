//! [`KeptPages`]: the pages of a run that lookups have read, so that a hit asks the database once, for
//! the data.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How many bytes of pages this process may still keep for one file.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Default for Budget {
    fn default() -> Self {
        const KEPT_BYTES: usize = 32 << 20;
        Self(Arc::new(AtomicUsize::new(KEPT_BYTES)))
    }
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The kept pages of one run.
#[derive(Debug)]
pub(super) struct KeptPages {
    pages: Box<[OnceLock<Box<[u8]>>]>,
    budget: Budget,
}

impl KeptPages {
    pub(super) fn new(pages: usize, budget: &Budget) -> Self {
        let pages = (0..pages).map(|_| OnceLock::new()).collect();
        Self { pages, budget: budget.clone() }
    }

    fn slot(&self, page: u32) -> Option<&OnceLock<Box<[u8]>>> {
        self.pages.get(usize::try_from(page).ok()?)
    }

    pub(super) fn get(&self, page: u32) -> Option<&[u8]> {
        self.slot(page)?.get().map(|bytes| &**bytes)
    }

    /// Keeps a page, as long as the budget allows.
    pub(super) fn keep(&self, page: u32, bytes: &[u8]) {
        let Some(slot) = self.slot(page) else { return };
        if self.budget.take(bytes.len()) && slot.set(bytes.into()).is_err() {
            self.budget.give_back(bytes.len());
        }
    }
}

impl Drop for KeptPages {
    fn drop(&mut self) {
        let kept = self.pages.iter().filter_map(OnceLock::get);
        self.budget.give_back(kept.map(|bytes| bytes.len()).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_within_the_budget() {
        let budget = Budget(Arc::new(AtomicUsize::new(10)));
        let pages = KeptPages::new(3, &budget);
        for page in [0, 0, 1, 2, 3] {
            pages.keep(page, &[7; 4]);
        }
        assert_eq!([0, 1, 2, 3].map(|page| pages.get(page).is_some()), [true, true, false, false]);
        assert_eq!(budget.0.load(Ordering::Relaxed), 2);
        drop(pages);
        assert_eq!(budget.0.load(Ordering::Relaxed), 10);
    }
}
