#![no_std]
//! The shared code of the fold visitors.

extern crate alloc;

mod files;
mod findings;
mod numbers;

pub use files::{is_binary, shown};
pub use findings::findings;
pub use numbers::{number, sum, tally};
