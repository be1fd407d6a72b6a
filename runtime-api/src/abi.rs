//! The guest ABI: one implementation for every backend, and two ways to write the same operations.
//!
//! A guest sends a request for each operation and gets a response. A backend that carries bytes makes a [`Session`]
//! for each job and hands it every request; a backend with typed calls hands it [`Operation`]s. Either way the session does
//! what the operation asks, remembers the outcome, and in the end says how the job ended.
//!
//! # `caos_abi_v1`
//!
//! Requests and responses are JSON objects, which anybody can speak.
//!
//! | op | request fields | response fields |
//! |---|---|---|
//! | `job` | | `args`, `std`, `salt`, `image`, `stack` (always empty); for a container that is a host, `module: {kind, hash}` |
//! | `tree` | `hash` | `entries: [{name, kind, hash, mode}]` |
//! | `get` | `hash` | `bytes_b64` |
//! | `put_blob` | `bytes_b64` | `hash` |
//! | `put_tree` | `entries: [{name, kind, hash, mode?}]`, any order | `hash` |
//! | `run` | `image`, `args` | `kind`, `hash` |
//! | `run_many` | `reqs: [{image, args}]` | `results: [{kind, hash} or {error}]`, in order |
//! | `out` | `kind`, `hash` | ; exactly once per job |
//! | `log` | `msg` | |
//! | `fail` | `message` | ; ends the job |
//!
//! An error is `{"error": text, "kind": text, "chain": [text]}`. A name that is not UTF-8 travels as `name_b64` beside an
//! escaped `name`.
//!
//! # `caos_abi_v2`
//!
//! The same operations as bytes, for guests that make thousands of them. An `id` is its length in one byte and its raw bytes; a `text`
//! is its length in four bytes, the least significant first, and its bytes; a `count` is four such bytes; a `kind` is 0 for a blob and 1 for a tree; a
//! `mode` is 0 to 4 for 40000, 100644, 100755, 120000 and 160000; `rest` goes to the end.
//!
//! | op | request, after the op's byte | response, after a zero byte |
//! |---|---|---|
//! | 1 `job` | | id `args`, id `std` (empty when there is none), text `image`, text `salt`; for a host, kind and id of the module |
//! | 2 `tree` | id | count, then mode, id, text `name` of each |
//! | 3 `get` | id | rest |
//! | 4 `put_blob` | rest | id |
//! | 5 `put_tree` | count, then mode, id, text `name` of each, any order | id |
//! | 6 `run` | id `args`, text `image` | kind, id |
//! | 7 `run_many` | count, then id `args`, text `image` of each | count, then of each a zero byte, kind and id; or an error |
//! | 8 `out` | kind, id | |
//! | 9 `log` | rest | |
//! | 10 `fail` | rest | |
//!
//! An error is a byte of value 1, text, text `kind`, and count and texts of the chain.

mod binary;
mod json;
mod operation;
mod session;

pub use json::Failure;
pub use operation::{Answer, Operation};
pub use session::{Encoding, Reply, Session};

/// The name of the ABI in JSON, as it stands in host images and in the import module of wasm guests.
pub const NAME: &str = "caos_abi_v1";

/// The name of the ABI in bytes, as it stands in host images and in the import module of wasm guests.
pub const BINARY_NAME: &str = "caos_abi_v2";
