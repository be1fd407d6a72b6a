//! [`KnownRuns`]: the runs that this process has read or written, and a filter for them together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::filter::Filter;
use super::index::{Prefix, Run};
use super::kept::Budget;
use super::tables::Index;

/// The runs of a file, by id. Ids are never used twice in one file.
#[derive(Debug, Default)]
pub(super) struct KnownRuns {
    runs: Mutex<HashMap<u64, Arc<Run>>>,
    joint: [Mutex<Joint>; 2],
    /// For the pages that are kept of the runs.
    pub(super) budget: Budget,
}

/// The filters of some runs together, so that a look-up of what is in none asks one or two filters, and
/// not one for each run.
#[derive(Debug, Default)]
struct Joint {
    /// Each is several times as large as the one before. Only the last one is added to.
    filters: Vec<Arc<Filter>>,
    /// How many prefixes the last filter has, and how many it may have.
    prefixes: usize,
    capacity: usize,
    /// How many prefixes were added to all filters, some of them several times.
    added: u64,
    /// The runs whose prefixes are in the filters.
    covered: HashSet<u64>,
    /// How often it began with no filters.
    generation: u64,
}

/// How many prefixes the first filter may have.
const FIRST_CAPACITY: usize = 1 << 17;
/// How many times as large each further filter is.
const GROWTH: usize = 4;

/// Filters one of which contains each prefix of some runs.
#[derive(Debug)]
pub(super) struct JointFilter(Vec<Arc<Filter>>);

impl JointFilter {
    pub(super) fn may_contain(&self, prefix: Prefix) -> bool {
        self.0.iter().any(|filter| filter.may_contain(prefix))
    }
}

/// A run that a transaction has written.
pub(super) struct NewRun {
    pub(super) index: Index,
    pub(super) run: Arc<Run>,
    pub(super) covered: Option<Covered>,
}

/// Means that the joint filter has the prefixes of a run, unless it began anew since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered {
    generation: u64,
}

impl KnownRuns {
    pub(super) fn get(&self, id: u64) -> Option<Arc<Run>> {
        self.runs.lock().get(&id).cloned()
    }

    /// Adds a run that was read.
    pub(super) fn insert(&self, run: Arc<Run>) {
        self.runs.lock().insert(run.id, run);
    }

    /// Adds a run that was committed.
    pub(super) fn insert_new(&self, NewRun { index, run, covered }: NewRun) {
        let mut joint = self.joint(index).lock();
        if covered.is_some_and(|covered| covered.generation == joint.generation) {
            joint.covered.insert(run.id);
        }
        drop(joint);
        self.insert(run);
    }

    /// Forgets all runs but these.
    pub(super) fn keep(&self, runs: impl Iterator<Item = Arc<Run>>) {
        let kept = runs.map(|run| (run.id, run)).collect();
        *self.runs.lock() = kept;
    }

    pub(super) fn clear(&self) {
        self.runs.lock().clear();
        self.joint.iter().for_each(|joint| joint.lock().begin_anew());
    }

    /// Adds the prefixes of a run that is about to be written beside `others`, which are all other runs
    /// of the index. Returns `None` if the filter does not have those of the others: another process has
    /// written some, or they are older than this process.
    pub(super) fn cover(
        &self,
        index: Index,
        others: &[Arc<Run>],
        prefixes: impl ExactSizeIterator<Item = Prefix>,
    ) -> Option<Covered> {
        let mut joint = self.joint(index).lock();
        let records: u64 = others.iter().map(|run| run.records).sum();
        if others.is_empty() || !joint.covers(others) || joint.is_stale(records) {
            joint.begin_anew();
        }
        if !joint.covers(others) {
            return None;
        }
        // Other runs were merged, or their commits are not over.
        joint.covered.retain(|covered| others.iter().any(|run| run.id == *covered));
        joint.add(prefixes);
        Some(Covered { generation: joint.generation })
    }

    /// Returns the joint filter if it has the prefixes of all these runs.
    pub(super) fn joint_filter(&self, index: Index, runs: &[Arc<Run>]) -> Option<JointFilter> {
        let joint = self.joint(index).lock();
        // One run has a filter itself.
        let is_useful = runs.len() > 1 && joint.covers(runs);
        is_useful.then(|| JointFilter(joint.filters.clone()))
    }

    fn joint(&self, index: Index) -> &Mutex<Joint> {
        &self.joint[index as usize]
    }
}

impl Joint {
    fn begin_anew(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }

    /// Returns whether the filters have the prefixes of all these runs.
    fn covers(&self, runs: &[Arc<Run>]) -> bool {
        runs.iter().all(|run| self.covered.contains(&run.id))
    }

    /// Returns whether most of what was added is no longer in the runs, which have so many records.
    fn is_stale(&self, records: u64) -> bool {
        self.added > 4 * records.max(FIRST_CAPACITY as u64)
    }

    fn add(&mut self, prefixes: impl ExactSizeIterator<Item = Prefix>) {
        let count = prefixes.len();
        if self.prefixes + count > self.capacity {
            self.capacity = (self.capacity * GROWTH).max(count).max(FIRST_CAPACITY);
            self.prefixes = 0;
            self.filters.push(Arc::new(Filter::new(self.capacity)));
        }
        self.prefixes += count;
        self.added += count as u64;
        if let Some(filter) = self.filters.last() {
            prefixes.for_each(|prefix| filter.insert(prefix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Stamp;
    use super::super::index::{Place, Record, encode};
    use super::*;

    fn mix(number: u64) -> Prefix {
        number.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17)
    }

    fn run(id: u64) -> Arc<Run> {
        let place = Place { chunk: 0, offset: 0 };
        let record = Record { prefix: mix(id), place, stamp: Stamp(0) };
        Arc::new(encode(id, id, &[record], &Budget::default()).0)
    }

    fn add(known: &KnownRuns, others: &[Arc<Run>], run: &Arc<Run>, prefixes: &[Prefix]) -> bool {
        let covered = known.cover(Index::Memo, others, prefixes.iter().copied());
        known.insert_new(NewRun { index: Index::Memo, run: Arc::clone(run), covered });
        covered.is_some()
    }

    #[test]
    fn the_joint_filter_has_what_any_covered_run_has() {
        let known = KnownRuns::default();
        let runs: Vec<_> = (0..6).map(run).collect();
        let of_run = |number: u64| -> Vec<_> {
            (number * 100_000..(number + 1) * 100_000).map(mix).collect()
        };
        for number in 0..4 {
            assert!(add(&known, &runs[..number], &runs[number], &of_run(number as u64)));
        }
        let joint = known.joint_filter(Index::Memo, &runs[..4]).unwrap();
        assert!((0..4).flat_map(of_run).all(|prefix| joint.may_contain(prefix)));
        let wrong = of_run(4).into_iter().filter(|prefix| joint.may_contain(*prefix)).count();
        assert!(wrong < 3000, "{wrong} of 100000");
        assert!(known.joint_filter(Index::Objects, &runs[..4]).is_none());
        // A run that another process has written is not covered, and neither is what comes after it.
        assert!(known.joint_filter(Index::Memo, &runs[..5]).is_none());
        assert!(!add(&known, &runs[..5], &runs[5], &of_run(5)));
        assert!(known.joint_filter(Index::Memo, &runs[..4]).is_none());
        // Everything was merged.
        assert!(add(&known, &[], &runs[1], &of_run(1)) && add(&known, &runs[1..2], &runs[2], &[]));
        assert!(known.joint_filter(Index::Memo, &runs[1..3]).is_some());
    }

    #[test]
    fn a_run_that_was_written_before_the_filter_began_anew_is_not_covered() {
        let known = KnownRuns::default();
        let (one, two) = (run(1), run(2));
        assert!(add(&known, &[], &one, &[1]));
        let covered = known.cover(Index::Memo, &[Arc::clone(&one)], [2].into_iter());
        known.clear();
        known.insert_new(NewRun { index: Index::Memo, run: Arc::clone(&two), covered });
        assert!(known.joint_filter(Index::Memo, &[one, two]).is_none());
    }

    #[test]
    fn a_filter_that_is_mostly_stale_is_dropped() {
        let known = KnownRuns::default();
        let (one, two) = (run(1), run(2));
        let prefixes: Vec<_> = (0..600_000).map(mix).collect();
        assert!(add(&known, &[], &one, &prefixes));
        assert!(!add(&known, std::slice::from_ref(&one), &two, &[1]));
    }
}
