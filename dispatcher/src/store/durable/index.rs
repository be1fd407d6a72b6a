//! [`Run`]s: the sorted, immutable parts of an index from ids to places of data.
//!
//! Each commit adds a run to an index. Runs of similar size are merged, so that there are few, and
//! each record is written a few times. A lookup asks the newest run first. Databases call this
//! structure a log-structured merge tree. Only places are merged: the data itself is written once.
//!
//! A record contains the first eight bytes of an id. Several ids can share them, so a lookup compares
//! the whole id with the one at the start of the data.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use manifold_runtime_api::ObjectId;

use super::filter::Filter;
use super::format::Stamp;
use super::kept::{Budget, KeptPages};

/// The first eight bytes of an id, by which runs are sorted.
pub(super) type Prefix = u64;

pub(super) fn prefix(id: ObjectId) -> Prefix {
    let mut bytes = [0; 8];
    for (byte, of_id) in bytes.iter_mut().zip(id.as_bytes()) {
        *byte = *of_id;
    }
    Prefix::from_be_bytes(bytes)
}

/// Where data begins: a chunk, and the offset in it in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) chunk: u32,
    pub(super) offset: u16,
}

/// An entry of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) prefix: Prefix,
    pub(super) place: Place,
    /// When the data was last used, give or take an hour.
    pub(super) stamp: Stamp,
}

/// The length of an encoded record in bytes.
const RECORD_BYTES: usize = 18;
/// The number of records on a page. A page fits into 16 KiB, with what the database adds.
const PAGE_RECORDS: usize = 900;

impl Record {
    fn encode(&self, page: &mut Vec<u8>) {
        page.extend_from_slice(&self.prefix.to_be_bytes());
        page.extend_from_slice(&self.stamp.0.to_le_bytes());
        page.extend_from_slice(&self.place.chunk.to_le_bytes());
        page.extend_from_slice(&self.place.offset.to_le_bytes());
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (prefix, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (stamp, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let (chunk, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let (offset, _) = rest.split_first_chunk().unwrap_or((&[0; 2], &[]));
        Self {
            prefix: Prefix::from_be_bytes(*prefix),
            place: Place { chunk: u32::from_le_bytes(*chunk), offset: u16::from_le_bytes(*offset) },
            stamp: Stamp(u32::from_le_bytes(*stamp)),
        }
    }
}

/// Returns the records of a page. `None` if its length is wrong.
pub(super) fn records(page: &[u8]) -> Option<impl Iterator<Item = Record> + '_> {
    let (records, rest) = page.as_chunks::<RECORD_BYTES>();
    rest.is_empty().then(|| records.iter().map(Record::decode))
}

/// Returns how many of the sorted `items` have a smaller prefix. Ids are hashes, so their prefixes are
/// spread evenly: looking near the expected place touches fewer cache lines than a binary search.
fn lower_bound<T>(items: &[T], prefix: Prefix, prefix_of: impl Fn(&T) -> Prefix) -> usize {
    let (Some(first), Some(last)) = (items.first(), items.last()) else { return 0 };
    let (first, last) = (prefix_of(first), prefix_of(last));
    let (mut start, mut end) = (0, items.len());
    if first < prefix && prefix <= last {
        let share = (u128::from(prefix - first) * items.len() as u128) / u128::from(last - first);
        let expected = usize::try_from(share).unwrap_or(end).min(end - 1);
        let is_less = |at: usize| items.get(at).is_some_and(|item| prefix_of(item) < prefix);
        let mut step = 8;
        if is_less(expected) {
            start = expected;
            while start + step < end && is_less(start + step) {
                (start, step) = (start + step, step * 2);
            }
            end = end.min(start + step);
        } else {
            end = expected;
            while end >= step && !is_less(end - step) {
                (end, step) = (end - step, step * 2);
            }
            start = end.saturating_sub(step);
        }
    }
    let between = items.get(start..end).unwrap_or_default();
    start + between.partition_point(|item| prefix_of(item) < prefix)
}

/// Returns the records of a sorted page whose prefix is `prefix`, in their order. `None` if the
/// length of the page is wrong.
pub(super) fn find(page: &[u8], prefix: Prefix) -> Option<impl Iterator<Item = Record> + '_> {
    let (records, rest) = page.as_chunks::<RECORD_BYTES>();
    let start = lower_bound(records, prefix, |bytes| Record::decode(bytes).prefix);
    rest.is_empty().then(move || {
        let from_start = records.get(start..).unwrap_or_default();
        from_start.iter().map(Record::decode).take_while(move |record| record.prefix == prefix)
    })
}

/// A run: pages of records, sorted by prefix. Of records with the same prefix, the newest is first.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: u64,
    /// Runs with a higher number are newer.
    pub(super) order: u64,
    pub(super) records: u64,
    /// The first prefix of each page.
    firsts: Vec<Prefix>,
    pub(super) kept: KeptPages,
    filter: OnceLock<Filter>,
    /// How many lookups have asked the run without a filter.
    lookups: AtomicU32,
}

/// How many lookups ask a run before it is read to build a filter for it.
const LOOKUPS_BEFORE_FILTER: u32 = 64;

impl Run {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(16 + 8 * self.firsts.len());
        header.extend_from_slice(&self.order.to_le_bytes());
        header.extend_from_slice(&self.records.to_le_bytes());
        for first in &self.firsts {
            header.extend_from_slice(&first.to_le_bytes());
        }
        header
    }

    /// Decodes a header. `None` if it is malformed.
    pub(super) fn decode(id: u64, header: &[u8], budget: &Budget) -> Option<Self> {
        let (numbers, rest) = header.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let (order, records) = (numbers.next()?, numbers.next()?);
        let firsts: Vec<_> = numbers.collect();
        // A damaged header must not make a filter of any size.
        let most = (firsts.len() as u64).saturating_mul(PAGE_RECORDS as u64);
        (rest.is_empty() && records <= most).then(|| Self {
            id,
            order,
            records,
            kept: KeptPages::new(firsts.len(), budget),
            firsts,
            filter: OnceLock::new(),
            lookups: AtomicU32::new(0),
        })
    }

    /// Returns the numbers of the run's pages.
    pub(super) fn pages(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.firsts.len()).unwrap_or(u32::MAX)
    }

    /// Returns the numbers of the pages that may contain records with this prefix.
    pub(super) fn pages_of(&self, prefix: Prefix) -> std::ops::Range<u32> {
        // Records with one prefix may begin at the end of the page before.
        let start = lower_bound(&self.firsts, prefix, |first| *first).saturating_sub(1);
        let from_start = self.firsts.get(start..).unwrap_or_default();
        let end = start + from_start.iter().take_while(|first| **first <= prefix).count();
        let number = |page: usize| u32::try_from(page).unwrap_or(u32::MAX);
        number(start.min(end))..number(end)
    }

    /// Returns whether the run may contain this prefix. `None` if that is unknown and it is time to
    /// build a filter.
    pub(super) fn may_contain(&self, prefix: Prefix) -> Option<bool> {
        match self.filter.get() {
            Some(filter) => Some(filter.may_contain(prefix)),
            None if self.lookups.fetch_add(1, Ordering::Relaxed) < LOOKUPS_BEFORE_FILTER => {
                Some(true)
            }
            None => None,
        }
    }

    pub(super) fn set_filter(&self, filter: Filter) {
        let _ = self.filter.set(filter);
    }
}

/// Encodes sorted records as a run. Returns the run and its pages.
pub(super) fn encode(
    id: u64,
    order: u64,
    records: &[Record],
    budget: &Budget,
) -> (Run, Vec<Vec<u8>>) {
    let filter = Filter::new(records.len());
    let mut firsts = Vec::new();
    let pages = records.chunks(PAGE_RECORDS).map(|records| {
        firsts.extend(records.first().map(|record| record.prefix));
        let mut page = Vec::with_capacity(records.len() * RECORD_BYTES);
        for record in records {
            filter.insert(record.prefix);
            record.encode(&mut page);
        }
        page
    });
    let pages: Vec<_> = pages.collect();
    let run = Run {
        id,
        order,
        records: records.len() as u64,
        kept: KeptPages::new(pages.len(), budget),
        firsts,
        filter: OnceLock::from(filter),
        lookups: AtomicU32::new(0),
    };
    (run, pages)
}

/// Sorts records, of which those of newer runs come first. Removes all but the newest record of
/// each place.
pub(super) fn sort(records: &mut Vec<Record>) {
    // Stable, so that of equal prefixes the newest remains first.
    records.sort_by_key(|record| record.prefix);
    let mut group: Vec<Place> = Vec::new();
    let mut of = None;
    records.retain(|record| {
        if of != Some(record.prefix) {
            of = Some(record.prefix);
            group.clear();
        }
        let is_new = !group.contains(&record.place);
        group.push(record.place);
        is_new
    });
}

/// Returns how many of the newest runs to merge, 0 if there is nothing to merge. `sizes` are the
/// numbers of records, from the newest run to the oldest.
pub(super) fn to_merge(sizes: impl Iterator<Item = u64>) -> usize {
    /// How many runs are merged at least.
    const WIDTH: usize = 8;
    /// How many times as long as the longest of them the merged run is at least, so that a long run
    /// is not written again for a few records.
    const GROWTH: u64 = 3;
    /// Longer runs than this are not written.
    const MAX_RECORDS: u64 = 1 << 22;
    let (mut count, mut total, mut longest) = (0, 0u64, 0);
    for size in sizes {
        (count, total, longest) = (count + 1, total.saturating_add(size), longest.max(size));
        if total > MAX_RECORDS {
            return 0;
        }
        if count >= WIDTH && total >= GROWTH * longest {
            return count;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_bound_is_that_of_a_binary_search() {
        let mix = |number: u64| number.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17);
        for count in [0, 1, 2, 3, 10, 900] {
            for limit in [1, 7, 1000, Prefix::MAX] {
                let mut items: Vec<_> = (0..count).map(|number| mix(number) % limit).collect();
                items.sort_unstable();
                let around = items.iter().flat_map(|item| [item.wrapping_sub(1), *item, item + 1]);
                for prefix in around.chain([0, 500, limit, Prefix::MAX]) {
                    let expected = items.partition_point(|item| *item < prefix);
                    assert_eq!(lower_bound(&items, prefix, |item| *item), expected, "{items:?}");
                }
            }
        }
    }

    fn record(prefix: Prefix, chunk: u32, stamp: u32) -> Record {
        Record { prefix, place: Place { chunk, offset: 7 }, stamp: Stamp(stamp) }
    }

    #[test]
    fn records_are_found_on_their_pages() {
        let mut records: Vec<_> =
            (0..5000).map(|number| record(number / 3 * 1000, number as u32, 1)).collect();
        sort(&mut records);
        let (run, pages) = encode(1, 1, &records, &Budget::default());
        let read = Run::decode(1, &run.encode(), &Budget::default()).unwrap();
        assert_eq!((read.order, read.records), (1, 5000));
        assert_eq!(read.pages().len(), pages.len());
        let found = |prefix| {
            let pages = read.pages_of(prefix).map(|page| &pages[page as usize]);
            pages.flat_map(|page| find(page, prefix).unwrap()).collect::<Vec<_>>()
        };
        for number in 0..1666 {
            let chunks: Vec<_> =
                found(number * 1000).into_iter().map(|record| record.place.chunk).collect();
            let first = number as u32 * 3;
            assert_eq!(chunks, [first, first + 1, first + 2], "{number}");
            assert_eq!(run.may_contain(number * 1000), Some(true));
        }
        assert!(found(1).is_empty() && found(u64::MAX).is_empty());
    }

    #[test]
    fn the_newest_record_of_a_place_is_kept() {
        let mut all = vec![record(2, 1, 9), record(1, 2, 9), record(2, 1, 3), record(2, 5, 1)];
        sort(&mut all);
        assert_eq!(all, [record(1, 2, 9), record(2, 1, 9), record(2, 5, 1)]);
    }

    #[test]
    fn runs_stay_few_and_are_merged_rarely() {
        for largest in [1, 100, 20_000] {
            merge_runs(|commit| 1 + commit * 7919 % largest);
        }
        // A long run at first, and short ones later.
        merge_runs(|commit| if commit == 0 { 1_000_000 } else { 10 });
    }

    fn merge_runs(size_of: impl Fn(u64) -> u64) {
        let mut sizes: Vec<u64> = Vec::new();
        let mut written = 0;
        for commit in 0..1000 {
            let size = size_of(commit);
            sizes.insert(0, size);
            written += size;
            loop {
                let merged = to_merge(sizes.iter().copied());
                if merged == 0 {
                    break;
                }
                let total: u64 = sizes.drain(..merged).sum();
                written += total;
                sizes.insert(0, total);
            }
            assert!(sizes.len() < 30, "{sizes:?}");
        }
        let total: u64 = sizes.iter().sum();
        assert!(written < 6 * total, "{written} of {total}");
    }
}
