//! The guest ABI `caos_abi_v1`: one implementation for every backend.
//!
//! A guest sends one JSON object for each operation and gets one back. A backend that carries bytes makes a [`Session`]
//! for each job and hands it every request; a backend with typed calls hands it [`Operation`]s. Either way the session does
//! what the operation asks, remembers the outcome, and in the end says how the job ended.
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

mod operation;
mod session;
mod wire;

pub use operation::{Answer, Operation};
pub use session::{Reply, Session};
pub use wire::Failure;

/// The ABI's name, as it stands in host images and in the import module of wasm guests.
pub const NAME: &str = "caos_abi_v1";
