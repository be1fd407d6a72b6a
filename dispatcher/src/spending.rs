//! [`Spending`]: how much of a part of a call's budget is spent.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::thread_number::ByThread;

/// What the runs of a call have spent of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Spent {
    /// The number of runs.
    pub runs: u64,
    /// The size of the objects that the guests stored, in bytes.
    pub written_bytes: u64,
}

impl Spent {
    /// Creates the sum of what some runs have spent.
    pub fn new(runs: u64, written_bytes: u64) -> Self {
        Self { runs, written_bytes }
    }
}

/// How much of a part of a call's budget is spent.
///
/// All frames of a call spend, and threads that count in the same place wait for each other. So a
/// group of threads takes a small part of the budget at once. Near its end, and if it is small, they
/// take exactly what they spend.
pub(crate) struct Spending {
    budget: u64,
    /// How much is taken at once: a ten-thousandth of the budget.
    part: u64,
    /// How much is spent or taken.
    taken: AtomicU64,
    /// What the groups of threads have taken and not spent.
    left: ByThread<AtomicU64, 8>,
}

impl Spending {
    pub(crate) fn new(budget: u64) -> Self {
        let (taken, left) = (AtomicU64::new(0), ByThread::default());
        Self { budget, part: budget / 10_000, taken, left }
    }

    /// Spends `amount`. Returns `false` if the budget is exceeded.
    pub(crate) fn spend(&self, amount: u64) -> bool {
        let left = self.left.own();
        let spend = |left: u64| left.checked_sub(amount);
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok() {
            return true;
        }
        if self.part > amount {
            if self.take(self.part) {
                left.fetch_add(self.part - amount, Ordering::Relaxed);
                return true;
            }
            self.taken.fetch_sub(self.part, Ordering::Relaxed);
        }
        self.take(amount)
    }

    /// Returns how much is spent.
    pub(crate) fn spent(&self) -> u64 {
        let left = self.left.all().map(|left| left.load(Ordering::Relaxed)).sum();
        self.taken.load(Ordering::Relaxed).saturating_sub(left)
    }

    /// Returns how much of the budget is left.
    pub(crate) fn left(&self) -> u64 {
        self.budget.saturating_sub(self.spent())
    }

    /// Takes `amount` from the budget. Returns `false` if the budget is exceeded.
    fn take(&self, amount: u64) -> bool {
        let before = self.taken.fetch_add(amount, Ordering::Relaxed);
        before.saturating_add(amount) <= self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_budget_is_exact() {
        for budget in [0, 1, 7, 9_999] {
            let spending = Spending::new(budget);
            let spent = (0..10_010).filter(|_| spending.spend(1)).count();
            assert_eq!(spent as u64, budget);
            assert_eq!(spending.left(), 0);
        }
    }

    #[test]
    fn threads_spend_no_more_than_the_budget_and_hardly_less() {
        const BUDGET: u64 = 1_000_000;
        let spending = Spending::new(BUDGET);
        let spend = || (0..).take_while(|number| spending.spend(1 + number % 3)).count();
        let spent: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(spend));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let spent = 2 * spent as u64;
        assert!((BUDGET - BUDGET / 1000..=BUDGET + 8).contains(&spent), "{spent}");
    }
}
