#![no_std]
//! What fold visitors that add up numbers have in common.

extern crate alloc;

use alloc::string::{String, ToString};

use manifold_guest::{Entry, Error, Job, Kind, Result, get, tree};

/// Answers `leaf` of a blob, and for a tree the sum of what its children answered, as decimal digits and a newline.
pub fn sum(job: &Job, leaf: impl FnOnce(&Entry) -> Result<u64>) -> Result<String> {
    let input = job.required("in")?;
    let total = match input.kind() {
        Kind::Blob => leaf(input)?,
        _ => {
            let mut total = 0u64;
            for child in tree(&job.required("children")?.id)? {
                total = total
                    .checked_add(number(&child)?)
                    .ok_or_else(|| Error::new("the sum is over 64 bits"))?;
            }
            total
        }
    };
    Ok(total.to_string() + "\n")
}

fn number(child: &Entry) -> Result<u64> {
    let text = get(&child.id)?;
    let text = core::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
    text.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        let name = String::from_utf8_lossy(&child.name);
        Error::new(["the result for `", &name, "` is no number and a newline"].concat())
    })
}
