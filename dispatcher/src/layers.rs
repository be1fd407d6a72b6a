//! Wrappers that add one thing to a store or a runtime. They nest: `Measured::new(Verified::new(store))` is a store, too.
//!
//! | layer | around a source or store | around a runtime |
//! |---|---|---|
//! | [`Verified`] | an object that does not have its id is an error | |
//! | [`Measured`] | counts operations, bytes and time | counts jobs and their time |
//! | [`Delayed`] | waits before every operation | waits before every job |
//! | [`Overlaid`] | a store over one that is only read | |
//! | [`Faulty`] | loses objects, fails, writes half | fails |

mod delayed;
mod faulty;
mod measured;
mod overlaid;
mod verified;

pub use delayed::Delayed;
pub use faulty::{Faults, Faulty};
pub use measured::{Measured, Measures};
pub use overlaid::Overlaid;
pub use verified::Verified;
