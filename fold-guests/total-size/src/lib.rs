#![no_std]
//! A fold visitor that adds up the sizes of all blobs in bytes.

extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, Result, size};

fn total_size(job: &Job) -> Result<String> {
    manifold_visitor::sum(job, |blob| size(&blob.id))
}

manifold_guest::main!(total_size);
