//! A guest that returns its argument `in` in upper case.
#![no_std]
extern crate alloc;

use alloc::string::String;

use manifold_guest::{Job, Result, get};

/// Returns the argument `in` in upper case.
fn shout(job: &Job) -> Result<String> {
    let text = get(&job.required("in")?.id)?;
    String::from_utf8(text)
        .map(|text| text.to_uppercase())
        .map_err(|_| "the argument `in` is not valid UTF-8".into())
}

manifold_guest::main!(shout);
