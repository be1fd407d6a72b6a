#![no_std]
//! The shared code of the fold visitors that add up numbers.

extern crate alloc;

use alloc::string::{String, ToString};

use manifold_guest::{Entry, Error, Job, Kind, Result, get, tree};

/// Returns the result of `leaf` for a blob, or the sum of the children's results for a tree.
///
/// The returned text consists of decimal digits and a newline.
///
/// # Errors
/// Returns an error if an argument is missing or cannot be read, if `leaf` fails, if a child's
/// result is not a number followed by a newline, or if the sum does not fit in 64 bits.
pub fn sum(job: &Job, leaf: impl FnOnce(&Entry) -> Result<u64>) -> Result<String> {
    let input = job.required("in")?;
    let total = match input.kind() {
        Kind::Blob => leaf(input)?,
        _ => {
            let mut total = 0u64;
            for child in tree(&job.required("children")?.id)? {
                total = total
                    .checked_add(number(&child)?)
                    .ok_or_else(|| Error::new("the sum does not fit in 64 bits"))?;
            }
            total
        }
    };
    Ok(total.to_string() + "\n")
}

/// Reads the result of a child.
fn number(child: &Entry) -> Result<u64> {
    let text = get(&child.id)?;
    let text = core::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
    text.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        let name = String::from_utf8_lossy(&child.name);
        Error::new(
            ["the result for `", &name, "` is not a decimal number followed by a newline"].concat(),
        )
    })
}
