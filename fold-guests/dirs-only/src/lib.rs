#![no_std]
//! A pre-visitor for fold: returns the entries of `in` that are directories. For a blob, it returns
//! an empty tree.

extern crate alloc;

use alloc::vec::Vec;

use manifold_guest::{Entry, Job, Kind, Result, tree};

fn dirs_only(job: &Job) -> Result<Vec<Entry>> {
    let input = job.required("in")?;
    let mut entries = match input.kind() {
        Kind::Tree => tree(&input.id)?,
        _ => Vec::new(),
    };
    entries.retain(|entry| entry.kind() == Kind::Tree);
    Ok(entries)
}

manifold_guest::main!(dirs_only);
