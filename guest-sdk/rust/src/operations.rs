//! The operations of the guest ABI, independent of their encoding.

#[cfg(all(target_arch = "wasm32", feature = "no-std-runtime"))]
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::object::{Entry, Id, ObjectRef};
#[cfg(target_arch = "wasm32")]
use crate::wire_binary as wire;
#[cfg(not(target_arch = "wasm32"))]
use crate::wire_json as wire;

pub(crate) use wire::{fail, job, out, out_blob};

/// Reads a tree and returns its entries in git's order.
///
/// # Errors
/// Returns an error if the host has no tree with this id.
pub fn tree(id: &Id) -> Result<Vec<Entry>> {
    wire::tree(id)
}

/// Reads a blob and returns its content.
///
/// A blob that is larger than the host's limit on a response ends the job. Read such a blob in
/// parts with [`get_range`].
///
/// # Errors
/// Returns an error if the host has no blob with this id.
pub fn get(id: &Id) -> Result<Vec<u8>> {
    wire::get(id)
}

/// Reads at most `length` bytes of a blob, from the byte `offset` on.
///
/// The part of the range beyond the end of the blob is ignored, so the result can be shorter than
/// `length`, or empty.
///
/// # Errors
/// Returns an error if the host has no blob with this id.
pub fn get_range(id: &Id, offset: u64, length: u64) -> Result<Vec<u8>> {
    wire::get_range(id, offset, length)
}

/// Returns the size of a blob in bytes, without reading it.
///
/// # Errors
/// Returns an error if the host has no blob with this id.
pub fn size(id: &Id) -> Result<u64> {
    wire::size(id)
}

/// Stores a blob.
///
/// # Errors
/// Returns an error if the host cannot store the blob.
pub fn put_blob(content: &[u8]) -> Result<ObjectRef> {
    wire::put_blob(content)
}

/// Stores a tree. The entries may be in any order.
///
/// # Errors
/// Returns an error if git would reject the tree, or if an entry names an object that the host does
/// not have.
pub fn put_tree(entries: &[Entry]) -> Result<ObjectRef> {
    wire::put_tree(entries)
}

/// Runs `image` on the arguments tree `args` and returns the outcome, which the host may take from
/// the memo.
///
/// # Errors
/// Returns an error if the run fails.
pub fn run(image: &str, args: &Id) -> Result<ObjectRef> {
    wire::run(image, args)
}

/// Runs many images, each on its arguments tree, and returns their results in the order of `calls`.
///
/// A run that fails does not affect the others.
///
/// # Errors
/// Returns an error if the host rejects the operation as a whole.
pub fn run_many<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a Id)>,
) -> Result<Vec<Result<ObjectRef>>> {
    wire::run_many(calls)
}

/// Writes a message to the job's log.
pub fn log(message: &str) {
    wire::log(message);
}

#[cfg(all(target_arch = "wasm32", feature = "no-std-runtime"))]
pub(crate) fn push_decimal(out: &mut String, number: u64) {
    if number > 9 {
        push_decimal(out, number / 10);
    }
    out.push((b'0' + (number % 10) as u8) as char);
}
