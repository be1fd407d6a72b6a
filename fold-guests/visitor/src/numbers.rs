//! Visitors that add up numbers.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use manifold_guest::{Entry, Error, Id, Job, Kind, Result, get, put_blob, tree};

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
            let mut total = 0;
            for child in tree(&job.required("children")?.id)? {
                total = add(total, number(&child)?)?;
            }
            total
        }
    };
    Ok(total.to_string() + "\n")
}

/// Returns how often each name occurs: at most once in a blob, for which `leaf` returns it, and in a
/// tree as often as in its children.
///
/// The returned entries have these names. Each is a blob of decimal digits and a newline.
///
/// # Errors
/// As [`sum`].
pub fn tally(job: &Job, leaf: impl FnOnce(&Entry) -> Result<Option<String>>) -> Result<Vec<Entry>> {
    let input = job.required("in")?;
    let mut tally: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    if input.kind() == Kind::Blob {
        tally.extend(leaf(input)?.map(|name| (name.into_bytes(), 1)));
    } else {
        // Many children have the same result, which is read once.
        let mut results: BTreeMap<Id, u64> = BTreeMap::new();
        for child in tree(&job.required("children")?.id)? {
            *results.entry(child.id).or_default() += 1;
        }
        for (result, times) in results {
            for entry in tree(&result)? {
                let product = number(&entry)?.checked_mul(times).ok_or_else(too_large)?;
                let total = tally.entry(entry.name).or_default();
                *total = add(*total, product)?;
            }
        }
    }
    let entries = tally.into_iter();
    entries
        .map(|(name, count)| Ok(put_blob((count.to_string() + "\n").as_bytes())?.named(name)))
        .collect()
}

/// Reads a blob that consists of decimal digits and a newline.
///
/// # Errors
/// Returns an error that names the entry if it is anything else, or does not fit in 64 bits.
pub fn number(entry: &Entry) -> Result<u64> {
    let text = get(&entry.id)?;
    let text = core::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
    text.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        let name = String::from_utf8_lossy(&entry.name);
        Error::new(
            ["the result for `", &name, "` is not a decimal number followed by a newline"].concat(),
        )
    })
}

pub(crate) fn add(one: u64, other: u64) -> Result<u64> {
    one.checked_add(other).ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::new("the sum does not fit in 64 bits")
}
