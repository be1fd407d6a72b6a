//! What a guest can ask its host for, however that is written.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::object::{Entry, Id, Object};
#[cfg(target_arch = "wasm32")]
use crate::wire_binary as wire;
#[cfg(not(target_arch = "wasm32"))]
use crate::wire_json as wire;

pub(crate) use wire::{fail, job, out};

pub(crate) struct JobFields {
    pub(crate) args: Id,
    pub(crate) image: String,
    pub(crate) std: String,
    pub(crate) salt: String,
}

/// Reads a tree: its entries in git's order.
///
/// # Errors
/// When the host has no such tree.
pub fn tree(id: &Id) -> Result<Vec<Entry>> {
    wire::tree(id)
}

/// Reads a blob.
///
/// # Errors
/// When the host has no such blob.
pub fn get(id: &Id) -> Result<Vec<u8>> {
    wire::get(id)
}

/// Stores a blob.
///
/// # Errors
/// When the host cannot store it.
pub fn put_blob(content: &[u8]) -> Result<Object> {
    wire::put_blob(content)
}

/// Stores a tree of entries in any order.
///
/// # Errors
/// When git would refuse the tree, or an entry names no object that the host has.
pub fn put_tree(entries: &[Entry]) -> Result<Object> {
    wire::put_tree(entries)
}

/// Runs `image` on the arguments tree `args`, or lets the host remember the outcome.
///
/// # Errors
/// When the run fails.
pub fn run(image: &str, args: &Id) -> Result<Object> {
    wire::run(image, args)
}

/// Runs many images, each on its arguments tree, and answers in their order. One failure leaves the others alone.
///
/// # Errors
/// When the host understands none of it.
pub fn run_many<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a Id)>,
) -> Result<Vec<Result<Object>>> {
    wire::run_many(calls)
}

/// Writes a line to the job's log.
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
