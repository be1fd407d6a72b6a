#![no_std]
//! A fold visitor that counts files: 1 for a blob, the sum of the children's results for a tree.

extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, Result};

fn file_count(job: &Job) -> Result<String> {
    manifold_visitor::sum(job, |_| Ok(1))
}

manifold_guest::main!(file_count);
