//! The guest ABI: the operations of a guest, and two encodings for them.
//!
//! A guest sends a request for each operation and receives a response. All backends share this
//! implementation. A backend creates a [`Session`] for each job. If its guests send bytes, it
//! passes each request to [`Session::call`]. If its guests make typed calls, it passes
//! [`Operation`]s to [`Session::operate`]. The session performs the operations, keeps the outcome
//! that the guest names, and finally returns the job's result.
//!
//! # `caos_abi_v1`
//!
//! Requests and responses are JSON objects, so a guest in any language can use this encoding.
//!
//! | op | request fields | response fields |
//! |---|---|---|
//! | `job` | | `args`, `std`, `salt`, `image`, `stack` (always empty); for a container that is a host, `module: {kind, hash}` |
//! | `job_with_args` | | those of `job` and, for the tree of arguments, of `tree` |
//! | `tree` | `hash` | `entries: [{name, kind, hash, mode}]` |
//! | `get` | `hash` | `bytes_b64` |
//! | `get_range` | `hash`, `offset`, `length` in bytes | `bytes_b64`, shorter than `length` at the end of the blob |
//! | `size` | `hash` | `size` in bytes |
//! | `put_blob` | `bytes_b64` | `hash` |
//! | `put_tree` | `entries: [{name, kind, hash, mode?}]`, any order | `hash` |
//! | `run` | `image`, `args` | `kind`, `hash` |
//! | `run_many` | `reqs: [{image, args}]` | `results: [{kind, hash} or {error}]`, in order |
//! | `out` | `kind`, `hash` | none; names the outcome: exactly one `out` or `out_blob` per job |
//! | `out_blob` | `bytes_b64` | none; stores a blob and names it as the outcome |
//! | `log` | `msg` | none |
//! | `fail` | `message` | none; ends the job |
//!
//! An error is `{"error": text, "kind": text, "chain": [text]}`. A name that is not UTF-8 is
//! transmitted as `name_b64`, next to an escaped `name`.
//!
//! # `caos_abi_v2`
//!
//! The same operations in a binary encoding, for guests that make thousands of calls:
//! - `id`: its length in one byte, then its raw bytes
//! - `text`: its length in four bytes, least significant first, then its bytes
//! - `count`: four bytes, least significant first
//! - `number`: eight bytes, least significant first
//! - `kind`: one byte, 0 for a blob and 1 for a tree
//! - `mode`: one byte, 0 to 4 for 40000, 100644, 100755, 120000 and 160000
//! - `rest`: all remaining bytes
//!
//! | op | request, after the byte of the op | response, after a zero byte |
//! |---|---|---|
//! | 1 `job` | | id `args`, id `std` (empty if there is none), text `image`, text `salt`; for a container that is a host, kind and id of the module |
//! | 2 `tree` | id | count, then for each entry: mode, id, text `name` |
//! | 3 `get` | id | rest |
//! | 4 `put_blob` | rest | id |
//! | 5 `put_tree` | count, then for each entry in any order: mode, id, text `name` | id |
//! | 6 `run` | id `args`, text `image` | kind, id |
//! | 7 `run_many` | count, then for each call: id `args`, text `image` | count, then for each call in order: a zero byte, kind and id; or an error |
//! | 8 `out` | kind, id | none; names the outcome: exactly one `out` or `out_blob` per job |
//! | 9 `log` | rest | none |
//! | 10 `fail` | rest | none; ends the job |
//! | 11 `size` | id | number: the size in bytes |
//! | 12 `get_range` | id, number `offset`, number `length` | rest, shorter than `length` at the end of the blob |
//! | 13 `job_with_args` | | as `job`, with a count and, for each argument, mode, id, text `name` before the kind and id of the module |
//! | 14 `out_blob` | rest | none; stores a blob and names it as the outcome |
//!
//! An error is a byte of value 1, a text with the message, a text with the kind, a count, and as
//! many texts with the lines of the chain.

mod binary;
mod failure;
mod json;
mod operation;
mod session;

pub use failure::Failure;
pub use operation::{Answer, Operation};
pub use session::{Encoding, Reply, Session};

/// The name of the JSON encoding. It appears in host images, and wasm guests import it as a module.
pub const NAME: &str = "caos_abi_v1";

/// The revision of the set of operations. It appears in host images, because a guest can observe
/// which operations exist.
pub const REVISION: u32 = 3;

/// The name of the binary encoding. It appears in host images, and wasm guests import it as a
/// module.
pub const BINARY_NAME: &str = "caos_abi_v2";
