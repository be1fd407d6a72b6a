#![doc = include_str!("../README.md")]

mod action;
mod address;
mod client;
mod digest;
mod error;
mod options;
mod pack;
mod recorded;
mod sender;
mod shared;

pub use address::CacheAddress;
pub use digest::Digest;
pub use error::CacheError;
pub use options::CacheOptions;
pub use pack::{Pack, PackError};
pub use recorded::Recorded;
pub use sender::{Sender, Sent};
pub use shared::{FULL_ENTRIES, Seed, SharedCache, check_name};
