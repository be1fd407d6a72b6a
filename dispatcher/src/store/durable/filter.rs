//! [`Filter`]: which prefixes are certainly not in a run.

use std::sync::atomic::{AtomicU32, Ordering};

use super::index::Prefix;

/// A Bloom filter whose bits for one prefix are in one block, so that a lookup touches one cache
/// line. See "Cache-, Hash- and Space-Efficient Bloom Filters" by Putze, Sanders and Singler.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[AtomicU32; 8]>,
}

impl Filter {
    /// Creates an empty filter for about this many prefixes. With them, it takes one of two hundred
    /// absent ones for present.
    pub(super) fn new(prefixes: usize) -> Self {
        const BITS_OF_PREFIX: usize = 12;
        let blocks = (prefixes * BITS_OF_PREFIX).div_ceil(256).max(1);
        let empty = || std::array::from_fn(|_| AtomicU32::new(0));
        Self { blocks: (0..blocks).map(|_| empty()).collect() }
    }

    /// Inserts a prefix. One thread does so at a time.
    pub(super) fn insert(&self, prefix: Prefix) {
        let (block, mask) = self.place(prefix);
        for (word, mask) in self.blocks.get(block).into_iter().flatten().zip(mask) {
            let bits = word.load(Ordering::Relaxed);
            if bits & mask == 0 {
                word.store(bits | mask, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn may_contain(&self, prefix: Prefix) -> bool {
        let (block, mask) = self.place(prefix);
        let is_set = |(word, mask): (&AtomicU32, u32)| word.load(Ordering::Relaxed) & mask != 0;
        self.blocks.get(block).is_none_or(|block| block.iter().zip(mask).all(is_set))
    }

    /// Returns the block of a prefix, and its bit in each word of the block.
    fn place(&self, prefix: Prefix) -> (usize, [u32; 8]) {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let hash = (prefix ^ SEED).wrapping_mul(SEED);
        let hash = hash ^ (hash >> 29);
        let block = (u128::from(hash) * self.blocks.len() as u128) >> 64;
        let bits = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mask = std::array::from_fn(|word| 1 << (bits >> (5 * word) & 31));
        (usize::try_from(block).unwrap_or(0), mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_excludes_most_absent_prefixes() {
        let mix = |number: u64| number.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17);
        let filter = Filter::new(10_000);
        (0..10_000).for_each(|number| filter.insert(mix(number)));
        assert!((0..10_000).all(|number| filter.may_contain(mix(number))));
        let wrong = (10_000..110_000).filter(|number| filter.may_contain(mix(*number))).count();
        assert!(wrong < 2000, "{wrong} of 100000");
    }
}
