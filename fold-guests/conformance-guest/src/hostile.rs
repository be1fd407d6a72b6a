//! Programs that use as much of something as they get.

use std::hint::{black_box, spin_loop};

use manifold_guest::{Job, Result};

const BLOCK_BYTES: usize = 1 << 20;

/// Computes without end. The arguments were read before.
pub(crate) fn spin(_: &Job) -> Result<String> {
    loop {
        spin_loop();
    }
}

/// Allocates memory without end.
pub(crate) fn hog(_: &Job) -> Result<String> {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1_u8; BLOCK_BYTES]));
    }
}

/// Allocates memory without end, and ends with an outcome if an allocation fails.
pub(crate) fn hog_and_catch(_: &Job) -> Result<String> {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if hoard.try_reserve(1).is_err() || block.try_reserve_exact(BLOCK_BYTES).is_err() {
            drop(hoard);
            return Ok("caught".to_owned());
        }
        block.resize(BLOCK_BYTES, 1);
        hoard.push(black_box(block));
    }
}
