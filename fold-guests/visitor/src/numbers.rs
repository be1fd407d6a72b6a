//! Visitors that add up numbers.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use manifold_guest::{
    Entry, Error, Id, Job, Kind, ObjectRef, Result, get, put_blob, put_tree, tree,
};

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

/// Returns how often each name occurs.
///
/// For a file, it is the text of the name that `leaf` returns, and a newline, or nothing. For a
/// directory, it is a tree with these names. Each entry is a blob of decimal digits and a newline.
///
/// # Errors
/// As [`sum`].
pub fn tally(job: &Job, leaf: impl FnOnce(&Entry) -> Result<Option<String>>) -> Result<ObjectRef> {
    let input = job.required("in")?;
    if input.kind() == Kind::Blob {
        return put_blob(leaf(input)?.map(|name| name + "\n").unwrap_or_default().as_bytes());
    }
    // Many children have the same result, which is read once.
    let mut results: BTreeMap<Id, (Kind, u64)> = BTreeMap::new();
    for child in tree(&job.required("children")?.id)? {
        results.entry(child.id).or_insert((child.kind(), 0)).1 += 1;
    }
    let mut tally: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut count = |name: Vec<u8>, times: u64| {
        let total = tally.entry(name).or_default();
        *total = add(*total, times)?;
        Ok::<_, Error>(())
    };
    for (result, (kind, times)) in results {
        if kind == Kind::Blob {
            let text = get(&result)?;
            let name = text.strip_suffix(b"\n").unwrap_or(&text);
            if !name.is_empty() {
                count(name.to_vec(), times)?;
            }
            continue;
        }
        for entry in tree(&result)? {
            let product = number(&entry)?.checked_mul(times).ok_or_else(too_large)?;
            count(entry.name, product)?;
        }
    }
    let entries = tally.into_iter();
    let entries = entries.map(|(name, count)| number_entry(name, count));
    put_tree(&entries.collect::<Result<Vec<_>>>()?)
}

/// Stores a number as [`number`] reads it.
pub(crate) fn number_entry(name: impl Into<Vec<u8>>, number: u64) -> Result<Entry> {
    Ok(put_blob((number.to_string() + "\n").as_bytes())?.named(name))
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
