#![doc = include_str!("../README.md")]

mod action;
mod address;
mod backend;
mod client;
mod digest;
mod error;
mod options;
mod recorded;
mod sender;
mod shared;
mod tier;
mod transit;
mod units;
mod worth;

pub use address::CacheAddress;
pub use backend::{Answer, Backend, Key, Value};
pub use digest::Digest;
pub use error::CacheError;
pub use manifold_pack::{Pack, PackError};
pub use options::CacheOptions;
pub use recorded::Recorded;
pub use sender::{Sender, Sent};
pub use shared::{FULL_ENTRIES, Seed, SharedCache, check_name};
pub use tier::{CacheTier, Exchanged, TierOptions, Use};
