#![no_std]
//! A fold visitor that counts the newline bytes of all blobs.

extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, Result, get};

fn line_count(job: &Job) -> Result<String> {
    manifold_visitor::sum(job, |blob| {
        let newlines = get(&blob.id)?.iter().filter(|byte| **byte == b'\n').count();
        Ok(newlines as u64)
    })
}

manifold_guest::main!(line_count);
