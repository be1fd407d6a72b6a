#![no_std]
//! A fold visitor: the bytes of all blobs.

extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, Result, get};

fn total_size(job: &Job) -> Result<String> {
    manifold_visitor::sum(job, |blob| Ok(get(&blob.id)?.len() as u64))
}

manifold_guest::main!(total_size);
